//! Interfaces whose traffic makes up the network totals. An interface that repeats the traffic of
//! another is recognized by the kernel's own links below `/sys/class/net` (kernel document
//! ABI/testing/sysfs-class-net): `device`, `lower_NAME`, `upper_NAME`, `iflink`, `bridge`, `tun_flags`.

use crate::Source;
use crate::parse::{number, text};
use std::collections::HashMap;

/// Returns for each interface whether it is part of the totals: every byte that enters or leaves the host
/// is counted once.
///
/// These are the interfaces with a device that are not below another device: the virtual function of a cloud
/// adapter counts its traffic in the adapter, a switch port in the conduit or the other way around.
/// Bridges, bonds, VLANs and tunnels have no device. In a container no interface has one; there all are
/// counted that are not virtual.
pub(crate) fn counted_interfaces(source: &dyn Source, names: &[&str]) -> Vec<bool> {
    let interfaces: Vec<Interface> = names.iter().map(|name| Interface::read(source, name)).collect();
    let by_name: HashMap<&str, usize> =
        names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
    let by_index: HashMap<u64, usize> =
        interfaces.iter().enumerate().filter_map(|(index, i)| Some((i.ifindex?, index))).collect();
    let mut is_below_device = vec![false; names.len()];
    for (index, interface) in interfaces.iter().enumerate() {
        let position = |name: &String| by_name.get(name.as_str()).copied();
        if interface.has_device {
            let lower = interface.lower.iter().filter_map(position);
            let linked = interface.iflink.and_then(|iflink| by_index.get(&iflink).copied());
            lower.chain(linked).filter(|&lower| lower != index).for_each(|i| is_below_device[i] = true);
        }
        let is_over_device = |upper: usize| upper != index && interfaces[upper].has_device;
        is_below_device[index] |= interface.upper.iter().filter_map(position).any(is_over_device);
    }
    let select = |condition: &dyn Fn(usize) -> bool| -> Option<Vec<bool>> {
        let selected: Vec<bool> = (0..names.len()).map(condition).collect();
        selected.contains(&true).then_some(selected)
    };
    select(&|index| interfaces[index].has_device && !is_below_device[index])
        .or_else(|| select(&|index| interfaces[index].has_device))
        .or_else(|| {
            select(&|index| !interfaces[index].is_virtual(&by_name) && !is_virtual_name(names[index]))
        })
        // A modem may be the only way out.
        .or_else(|| select(&|index| names[index].starts_with("ppp") || names[index].starts_with("wwan")))
        .unwrap_or_else(|| vec![false; names.len()])
}

/// Properties of an interface.
#[derive(Default)]
struct Interface {
    /// True for hardware and for the devices of a hypervisor.
    has_device: bool,
    /// True for bridges, bonds, taps and tunnels.
    is_virtual_kind: bool,
    lower: Vec<String>,
    upper: Vec<String>,
    ifindex: Option<u64>,
    iflink: Option<u64>,
}

/// Interface types (`ARPHRD_*`, include/uapi/linux/if_arp.h) of tunnels, buses and the loopback device:
/// CAN, PPP, IPIP, IPv6 tunnel, loopback, SIT, GRE, GRE over IPv6, and none (TUN, WireGuard).
const TUNNEL_TYPES: [u64; 9] = [280, 512, 768, 769, 772, 776, 778, 823, 65534];
/// Interface types of wireless monitors, which repeat the frames of the interface they belong to.
const MONITOR_TYPES: [u64; 4] = [801, 802, 803, 805];
/// Device types in `uevent` of interfaces that carry traffic of other interfaces.
const VIRTUAL_DEVTYPES: [&str; 9] =
    ["bridge", "bond", "vlan", "vxlan", "geneve", "wireguard", "hsr", "macvtap", "ppp"];

impl Interface {
    fn read(source: &dyn Source, name: &str) -> Self {
        let folder = format!("/sys/class/net/{name}");
        let entries = source.list(&folder).unwrap_or_default();
        let has = |entry: &str| entries.iter().any(|e| e == entry);
        let names_after = |prefix: &str| -> Vec<String> {
            entries.iter().filter_map(|entry| entry.strip_prefix(prefix)).map(str::to_owned).collect()
        };
        let kind = number::<u64>(source, &format!("{folder}/type")).ok();
        let uevent = text(source, &format!("{folder}/uevent")).unwrap_or_default();
        let devtype = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).unwrap_or_default();
        let has_device = has("device") || source.list(&format!("{folder}/device")).is_ok();
        let is_monitor = kind.is_some_and(|kind| MONITOR_TYPES.contains(&kind));
        Self {
            has_device: has_device && !is_monitor && !is_port_of_guest(source, &folder),
            is_virtual_kind: ["bridge", "bonding", "tun_flags"].into_iter().any(has)
                || kind.is_some_and(|kind| TUNNEL_TYPES.contains(&kind))
                || VIRTUAL_DEVTYPES.contains(&devtype),
            lower: names_after("lower_"),
            upper: names_after("upper_"),
            ifindex: number(source, &format!("{folder}/ifindex")).ok(),
            iflink: number(source, &format!("{folder}/iflink")).ok(),
        }
    }

    fn is_virtual(&self, by_name: &HashMap<&str, usize>) -> bool {
        self.is_virtual_kind || self.lower.iter().any(|lower| by_name.contains_key(lower.as_str()))
    }
}

/// Returns whether an interface with a device is the host's end of a guest's interface: the representor of a
/// function (`phys_port_name` is `pf0vf1`), or the backend of a Xen guest. The guest's traffic is
/// counted again where it leaves the host.
fn is_port_of_guest(source: &dyn Source, folder: &str) -> bool {
    let port = text(source, &format!("{folder}/phys_port_name")).unwrap_or_default();
    // `pf0`, `pf0vf1`, `pf0hpf` or `c1pf0sf3`; the port itself is `p0`.
    let port = port.trim();
    let without_controller =
        port.strip_prefix('c').map(|c| c.trim_start_matches(|c: char| c.is_ascii_digit()));
    let is_representor = without_controller.unwrap_or(port).starts_with("pf");
    let bus = source.link(&format!("{folder}/device/subsystem")).unwrap_or_default();
    is_representor || bus.ends_with("/xen-backend")
}

/// Prefixes of the usual names of virtual interfaces, for kernels and containers without `/sys`.
const VIRTUAL_PREFIXES: &[&str] = &[
    "lo",
    "docker",
    "br-",
    "bridge",
    "virbr",
    "vmbr",
    "lxcbr",
    "lxdbr",
    "incusbr",
    "podman",
    "cni",
    "flannel",
    "cali",
    "cilium",
    "lxc",
    "veth",
    "vnet",
    "tap",
    "tun",
    "tailscale",
    "wg",
    "zt",
    "nebula",
    "ppp",
    "dummy",
    "ifb",
    "bond",
    "team",
    "vlan",
    "vxlan",
    "geneve",
    "genev_",
    "gre",
    "erspan",
    "sit",
    "ip6tnl",
    "ip6gre",
    "ip6_vti",
    "ip_vti",
    "ovs",
    "kube-",
    "nodelocaldns",
    "fwbr",
    "fwln",
    "fwpr",
    "weave",
    "datapath",
    "macvtap",
    "macsec",
    "xfrm",
    "vti",
    "ipsec",
    "bat",
    "utun",
    "proton",
    "nordlynx",
    "outline-tun",
    "ham",
    "ovpn",
    "svpn",
    "nlmon",
    "teql",
    "vif",
    "qvo",
    "qvb",
    "qbr",
    "qr-",
    "qg-",
];

/// Returns whether an interface has the usual name of a virtual one.
fn is_virtual_name(name: &str) -> bool {
    VIRTUAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.strip_prefix("br").is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        || name.ends_with("-vrf")
        // A VLAN: eth0.7.
        || name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capture;

    /// Names of the counted interfaces. Each line is `NAME: ENTRY…`; an entry may be `FILE=CONTENT` or
    /// `LINK>TARGET`.
    fn counted(sysfs: &str) -> Vec<String> {
        use std::fmt::Write as _;
        let mut capture = String::new();
        let mut names = Vec::new();
        for line in sysfs.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, entries) = line.split_once(':').unwrap();
            let entries: Vec<&str> = entries.split_ascii_whitespace().collect();
            names.push(name);
            if entries.is_empty() {
                continue;
            }
            let folder = format!("/sys/class/net/{name}");
            let entry_names: Vec<&str> =
                entries.iter().map(|e| e.split(['=', '>', '/']).next().unwrap()).collect();
            let _ = writeln!(capture, "=== {folder} list\n{}", entry_names.join("\n"));
            for entry in entries {
                if let Some((file, content)) = entry.split_once('=').filter(|(file, _)| !file.contains('>')) {
                    let _ = writeln!(capture, "=== {folder}/{file}\n{content}");
                } else if let Some((link, target)) = entry.split_once('>') {
                    let _ = writeln!(capture, "=== {folder}/{link} link\n{target}");
                }
            }
        }
        let capture = Capture::parse(capture.as_bytes()).unwrap();
        let counted = counted_interfaces(&capture, &names);
        names
            .iter()
            .zip(counted)
            .filter(|(_, counted)| *counted)
            .map(|(name, _)| (*name).to_owned())
            .collect()
    }

    #[test]
    fn traffic_is_counted_once() {
        for (kind, sysfs, expected) in [
            (
                "virtual function of a cloud adapter",
                "lo:\neth0: device lower_enP1s1\nenP1s1: device master",
                "eth0",
            ),
            ("the same by the link of the function", "eth0: device\nenP1s1: device upper_eth0", "eth0"),
            (
                "switch ports over their conduit",
                "eth0: device ifindex=2 iflink=2\nlan1: device ifindex=3 iflink=2\nwan: device lower_eth0\nbr-lan: bridge",
                "lan1 wan",
            ),
            (
                "bond",
                "eth0: device upper_bond0\neth1: device upper_bond0\nbond0: bonding lower_eth0 lower_eth1",
                "eth0 eth1",
            ),
            (
                "VLAN, bridge and tap",
                "eth0: device\neth0.7: lower_eth0\nvm: tun_flags\nbr0: bridge lower_eth0",
                "eth0",
            ),
            (
                "representors of functions",
                "p0: device phys_port_name=p0\na: device phys_port_name=pf0vf0\nb: device phys_port_name=pf0hpf\n\
                 c: device phys_port_name=c1pf0sf3\nd: device phys_port_name=pf0",
                "p0",
            ),
            (
                "backend of a Xen guest",
                "eth0: device\nvif1.0: device device/subsystem>../../bus/xen-backend",
                "eth0",
            ),
            ("wireless monitor", "wlan0: device type=1\nmon0: device type=803", "wlan0"),
            ("links in a circle", "a: device lower_b\nb: device lower_a", "a b"),
            (
                "container with sysfs",
                "lo: type=772\neth0: type=1 ifindex=2 iflink=9\nvpn: type=65534\nlan: bridge\nmv: uevent=DEVTYPE=vxlan",
                "eth0",
            ),
            (
                "container without sysfs",
                "lo:\neth0:\nbr0:\ntailscale0:\npodman0:\nlxdbr0:\nppp0:\neth0.5:",
                "eth0",
            ),
            ("only a modem", "lo:\nppp0:\nbr0:", "ppp0"),
            ("nothing", "lo:", ""),
        ] {
            assert_eq!(counted(sysfs).join(" "), expected, "{kind}");
        }
    }
}
