//! Name of the processor from `/proc/cpuinfo`, whose lines differ by architecture.

/// Names of the lines of `/proc/cpuinfo` that tell the processor; all other lines can be left out.
///
/// - `model name` (x86, parisc), `Model Name` (LoongArch): the marketing name. On 32-bit ARM it only has
///   the architecture, as has `Processor` of kernels before 3.8.
/// - `Model`, `Hardware` (ARM): the board and the system on a chip.
/// - `CPU implementer`, `CPU part` (ARM): numbers of the vendor and of the core.
/// - `cpu model`, `system type` (MIPS, Alpha), `cpu` (PowerPC, SPARC), `cpu type` (SuperH), `CPU` (m68k).
/// - `uarch`, `mvendorid`, `isa` (RISC-V).
/// - `vendor_id`, `processor 0` (s390, the latter with the machine type).
#[rustfmt::skip]
pub const CPUINFO_KEYS: &[&str] = &[
    "model name", "Model Name", "Processor", "Model", "Hardware", "CPU implementer", "CPU part", "cpu model",
    "system type", "cpu", "cpu type", "CPU", "uarch", "mvendorid", "isa", "vendor_id", "processor 0",
];

/// Maximum number of different cores in a name. Systems on a chip have up to four.
const MAX_CORE_KINDS: usize = 4;

/// Vendor of ARM cores: number of `CPU implementer`, name, names of the cores by `CPU part`.
struct ArmVendor {
    implementer: u32,
    name: &'static str,
    parts: &'static [(u32, &'static str)],
}

/// Part numbers from the MIDR_EL1 descriptions of the vendors and `asm/cputype.h` of Linux.
#[rustfmt::skip]
const ARM_VENDORS: &[ArmVendor] = &[
    ArmVendor { implementer: 0x41, name: "ARM", parts: &[
        (0x810, "ARM810"), (0x920, "ARM920"), (0x922, "ARM922"), (0x926, "ARM926"), (0x940, "ARM940"),
        (0x946, "ARM946"), (0x966, "ARM966"), (0xa20, "ARM1020"), (0xa22, "ARM1022"), (0xa26, "ARM1026"),
        (0xb02, "ARM11 MPCore"), (0xb36, "ARM1136"), (0xb56, "ARM1156"), (0xb76, "ARM1176"),
        (0xc05, "Cortex-A5"), (0xc07, "Cortex-A7"), (0xc08, "Cortex-A8"), (0xc09, "Cortex-A9"),
        (0xc0d, "Cortex-A12"), (0xc0e, "Cortex-A17"), (0xc0f, "Cortex-A15"), (0xc14, "Cortex-R4"),
        (0xc15, "Cortex-R5"), (0xc17, "Cortex-R7"), (0xc18, "Cortex-R8"), (0xd01, "Cortex-A32"),
        (0xd02, "Cortex-A34"), (0xd03, "Cortex-A53"), (0xd04, "Cortex-A35"), (0xd05, "Cortex-A55"),
        (0xd06, "Cortex-A65"), (0xd07, "Cortex-A57"), (0xd08, "Cortex-A72"), (0xd09, "Cortex-A73"),
        (0xd0a, "Cortex-A75"), (0xd0b, "Cortex-A76"), (0xd0c, "Neoverse-N1"), (0xd0d, "Cortex-A77"),
        (0xd0e, "Cortex-A76AE"), (0xd13, "Cortex-R52"), (0xd14, "Cortex-R82AE"), (0xd15, "Cortex-R82"),
        (0xd16, "Cortex-R52+"), (0xd40, "Neoverse-V1"), (0xd41, "Cortex-A78"), (0xd42, "Cortex-A78AE"),
        (0xd43, "Cortex-A65AE"), (0xd44, "Cortex-X1"), (0xd46, "Cortex-A510"), (0xd47, "Cortex-A710"),
        (0xd48, "Cortex-X2"), (0xd49, "Neoverse-N2"), (0xd4a, "Neoverse-E1"), (0xd4b, "Cortex-A78C"),
        (0xd4c, "Cortex-X1C"), (0xd4d, "Cortex-A715"), (0xd4e, "Cortex-X3"), (0xd4f, "Neoverse-V2"),
        (0xd80, "Cortex-A520"), (0xd81, "Cortex-A720"), (0xd82, "Cortex-X4"), (0xd83, "Neoverse-V3AE"),
        (0xd84, "Neoverse-V3"), (0xd85, "Cortex-X925"), (0xd87, "Cortex-A725"), (0xd88, "Cortex-A520AE"),
        (0xd89, "Cortex-A720AE"), (0xd8e, "Neoverse-N3"), (0xd8f, "Cortex-A320"),
    ] },
    ArmVendor { implementer: 0x42, name: "Broadcom", parts: &[
        (0x00f, "Brahma-B15"), (0x100, "Brahma-B53"), (0x516, "ThunderX2"),
    ] },
    ArmVendor { implementer: 0x43, name: "Cavium", parts: &[
        (0x0a0, "ThunderX"), (0x0a1, "ThunderX-88XX"), (0x0a2, "ThunderX-81XX"), (0x0a3, "ThunderX-83XX"),
        (0x0af, "ThunderX2-99xx"), (0x0b0, "OcteonTX2"), (0x0b1, "OcteonTX2-98XX"), (0x0b2, "OcteonTX2-96XX"),
        (0x0b3, "OcteonTX2-95XX"), (0x0b4, "OcteonTX2-95XXN"), (0x0b5, "OcteonTX2-95XXMM"),
        (0x0b6, "OcteonTX2-95XXO"), (0x0b8, "ThunderX3-T110"),
    ] },
    ArmVendor { implementer: 0x44, name: "DEC", parts: &[(0xa10, "SA110"), (0xa11, "SA1100")] },
    ArmVendor { implementer: 0x46, name: "Fujitsu", parts: &[(0x001, "A64FX"), (0x003, "MONAKA")] },
    ArmVendor { implementer: 0x48, name: "HiSilicon", parts: &[
        (0xd01, "Kunpeng-920"), (0xd02, "Kunpeng-920B"), (0xd40, "Cortex-A76"),
    ] },
    ArmVendor { implementer: 0x49, name: "Infineon", parts: &[] },
    ArmVendor { implementer: 0x4d, name: "Freescale", parts: &[] },
    ArmVendor { implementer: 0x4e, name: "NVIDIA", parts: &[
        (0x000, "Denver"), (0x003, "Denver 2"), (0x004, "Carmel"), (0x010, "Olympus"),
    ] },
    ArmVendor { implementer: 0x50, name: "APM", parts: &[(0x000, "X-Gene")] },
    ArmVendor { implementer: 0x51, name: "Qualcomm", parts: &[
        (0x001, "Oryon"), (0x00f, "Scorpion"), (0x02d, "Scorpion"), (0x04d, "Krait"), (0x06f, "Krait"),
        (0x201, "Kryo"), (0x205, "Kryo"), (0x211, "Kryo"), (0x800, "Kryo-2XX-Gold"),
        (0x801, "Kryo-2XX-Silver"),
        (0x802, "Kryo-3XX-Gold"), (0x803, "Kryo-3XX-Silver"), (0x804, "Kryo-4XX-Gold"),
        (0x805, "Kryo-4XX-Silver"), (0xc00, "Falkor"), (0xc01, "Saphira"),
    ] },
    ArmVendor { implementer: 0x53, name: "Samsung", parts: &[
        (0x001, "Exynos-M1"), (0x002, "Exynos-M3"), (0x003, "Exynos-M4"), (0x004, "Exynos-M5"),
    ] },
    ArmVendor { implementer: 0x56, name: "Marvell", parts: &[
        (0x131, "Feroceon-88FR131"), (0x581, "PJ4"), (0x584, "PJ4B-MP"),
    ] },
    ArmVendor { implementer: 0x61, name: "Apple", parts: &[
        (0x020, "Icestorm-A14"), (0x021, "Firestorm-A14"), (0x022, "Icestorm-M1"), (0x023, "Firestorm-M1"),
        (0x024, "Icestorm-M1-Pro"), (0x025, "Firestorm-M1-Pro"), (0x028, "Icestorm-M1-Max"),
        (0x029, "Firestorm-M1-Max"), (0x030, "Blizzard-A15"), (0x031, "Avalanche-A15"),
        (0x032, "Blizzard-M2"),
        (0x033, "Avalanche-M2"), (0x034, "Blizzard-M2-Pro"), (0x035, "Avalanche-M2-Pro"),
        (0x036, "Sawtooth-A16"), (0x037, "Everest-A16"), (0x038, "Blizzard-M2-Max"),
        (0x039, "Avalanche-M2-Max"),
    ] },
    ArmVendor { implementer: 0x66, name: "Faraday", parts: &[(0x526, "FA526"), (0x626, "FA626")] },
    ArmVendor { implementer: 0x69, name: "Intel", parts: &[] },
    ArmVendor { implementer: 0x6d, name: "Microsoft", parts: &[(0xd49, "Azure Cobalt 100")] },
    ArmVendor { implementer: 0x70, name: "Phytium", parts: &[
        (0x303, "FTC310"), (0x660, "FTC660"), (0x661, "FTC661"), (0x662, "FTC662"), (0x663, "FTC663"),
        (0x664, "FTC664"), (0x862, "FTC862"),
    ] },
    ArmVendor { implementer: 0xc0, name: "Ampere", parts: &[
        (0xac3, "Ampere-1"), (0xac4, "Ampere-1A"), (0xac5, "Ampere-1B"),
    ] },
];

/// JEDEC numbers of `mvendorid` on RISC-V.
const RISCV_VENDORS: &[(u32, &str)] =
    &[(0x31e, "Andes"), (0x489, "SiFive"), (0x5b7, "T-Head"), (0x602, "Ventana"), (0x710, "SpacemiT")];

/// First values of the lines, and the different ARM cores.
#[derive(Default)]
struct CpuInfo<'a> {
    /// Values in the order of [`CPUINFO_KEYS`].
    values: [Option<&'a str>; CPUINFO_KEYS.len()],
    /// Pairs of implementer and part.
    cores: Vec<(u32, u32)>,
}

impl<'a> CpuInfo<'a> {
    fn parse(text: &'a str) -> Self {
        let mut info = Self::default();
        let mut implementer = None;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim_ascii_end(), value.trim());
            let Some(index) = CPUINFO_KEYS.iter().position(|known| *known == key) else { continue };
            if value.is_empty() {
                continue;
            }
            match key {
                "CPU implementer" => implementer = parse_number(value),
                "CPU part" => {
                    let core = implementer.zip(parse_number(value));
                    let is_new = |core: &(u32, u32)| !info.cores.contains(core);
                    if let Some(core) = core.filter(is_new).filter(|_| info.cores.len() < MAX_CORE_KINDS) {
                        info.cores.push(core);
                    }
                }
                _ => {}
            }
            info.values[index].get_or_insert(value);
            // A marketing name is final; the cores after the first are not parsed.
            if info.marketing_name().is_some() {
                break;
            }
        }
        info
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.values[CPUINFO_KEYS.iter().position(|known| *known == key)?]
    }

    fn marketing_name(&self) -> Option<&'a str> {
        let name = self.get("model name").or_else(|| self.get("Model Name"))?;
        (!is_architecture_name(name)).then_some(name)
    }

    fn architecture_name(&self) -> Option<&'a str> {
        self.get("model name").or_else(|| self.get("Processor"))
    }

    fn board(&self) -> Option<&'a str> {
        // "Generic DT based system" names no hardware.
        self.get("Model").or_else(|| self.get("Hardware").filter(|name| !name.starts_with("Generic DT")))
    }

    /// Names of the different ARM cores; the larger core, which has the larger number, first.
    fn arm_cores(&self, is_known: bool) -> Option<String> {
        let mut cores = self.cores.clone();
        cores.sort_unstable_by_key(|&(_, part)| std::cmp::Reverse(part));
        let has_known = cores.iter().any(|&(implementer, part)| arm_part(implementer, part).is_some());
        let mut names: Vec<String> =
            cores.iter().map(|&(implementer, part)| arm_core_name(implementer, part)).collect();
        names.dedup();
        (!names.is_empty() && has_known == is_known).then(|| names.join(" + "))
    }

    fn riscv_name(&self) -> Option<String> {
        if let Some(name) = self.get("uarch").filter(|name| *name != "unknown") {
            return Some(name.to_owned());
        }
        // The extensions after the first underscore can have hundreds of characters.
        let isa = self.get("isa").map(|isa| isa.split('_').next().unwrap_or(isa));
        let number = self.get("mvendorid").and_then(parse_number).filter(|&number| number != 0);
        let vendor = number.map(|number| {
            let known = RISCV_VENDORS.iter().find(|(id, _)| *id == number);
            known.map_or_else(|| format!("vendor {number:#x}"), |(_, name)| (*name).to_owned())
        });
        match (vendor, isa) {
            (Some(vendor), Some(isa)) => Some(format!("{vendor} {isa}")),
            (vendor, isa) => vendor.or_else(|| isa.map(str::to_owned)),
        }
    }

    fn s390_name(&self) -> Option<String> {
        // "version = FF,  identification = 0133E8,  machine = 2964"
        let machine = self.get("processor 0")?.split("machine =").nth(1)?.trim();
        Some(format!("{} machine {machine}", self.get("vendor_id")?))
    }
}

/// Name of the processor or board; empty if unknown. The most specific line counts: marketing name, board,
/// known ARM cores, then the lines of the other architectures.
pub(crate) fn cpu_model(cpuinfo: &str) -> String {
    let info = CpuInfo::parse(cpuinfo);
    let text = |key: &str| info.get(key).map(str::to_owned);
    info.marketing_name()
        .or_else(|| info.board())
        .map(str::to_owned)
        .or_else(|| info.arm_cores(true))
        .or_else(|| info.architecture_name().map(str::to_owned))
        .or_else(|| info.arm_cores(false))
        .or_else(|| text("cpu model"))
        .or_else(|| text("cpu"))
        .or_else(|| text("cpu type"))
        .or_else(|| text("CPU"))
        .or_else(|| info.riscv_name())
        .or_else(|| info.s390_name())
        .or_else(|| text("vendor_id"))
        .or_else(|| text("system type"))
        .or_else(|| text("Hardware"))
        .unwrap_or_default()
}

/// Returns true for names such as `ARMv7 Processor rev 4 (v7l)` and `AArch64 Processor rev 0 (aarch64)`,
/// which are the same for many cores.
fn is_architecture_name(name: &str) -> bool {
    let is_arm = name.starts_with("ARMv") || name.starts_with("AArch64");
    is_arm && name.to_ascii_lowercase().contains("processor")
}

fn arm_part(implementer: u32, part: u32) -> Option<&'static str> {
    let vendor = ARM_VENDORS.iter().find(|vendor| vendor.implementer == implementer)?;
    vendor.parts.iter().find(|(number, _)| *number == part).map(|(_, name)| *name)
}

fn arm_core_name(implementer: u32, part: u32) -> String {
    if let Some(name) = arm_part(implementer, part) {
        return name.to_owned();
    }
    match ARM_VENDORS.iter().find(|vendor| vendor.implementer == implementer) {
        Some(vendor) => format!("{} {part:#05x}", vendor.name),
        None => format!("ARM implementer {implementer:#04x} part {part:#05x}"),
    }
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm_cpuinfo(cores: &[(u32, u32)]) -> String {
        let core = |&(implementer, part): &(u32, u32)| {
            format!("processor\t: 0\nCPU implementer\t: {implementer:#x}\nCPU part\t: {part:#05x}\n\n")
        };
        cores.iter().map(core).collect()
    }

    #[test]
    fn arm_cores_are_named() {
        for (cores, expected) in [
            (vec![(0x41, 0xd0c)], "Neoverse-N1"),
            (vec![(0x41, 0xd05), (0x41, 0xd05), (0x41, 0xd0b)], "Cortex-A76 + Cortex-A55"),
            (vec![(0x51, 0x804), (0x51, 0x805)], "Kryo-4XX-Silver + Kryo-4XX-Gold"),
            (vec![(0xc0, 0xac3)], "Ampere-1"),
            (vec![(0x50, 0)], "X-Gene"),
            (vec![(0x41, 0xfff)], "ARM 0xfff"),
            (vec![(0x61, 0xfff)], "Apple 0xfff"),
            (vec![(0x99, 0x1)], "ARM implementer 0x99 part 0x001"),
            (vec![(0x41, 0xd03), (0x41, 0xfff)], "ARM 0xfff + Cortex-A53"),
            (vec![], ""),
        ] {
            assert_eq!(cpu_model(&arm_cpuinfo(&cores)), expected);
        }
    }

    #[test]
    fn most_specific_line_counts() {
        let generic = "model name\t: ARMv7 Processor rev 4 (v7l)\n";
        let a53 = arm_cpuinfo(&[(0x41, 0xd03)]);
        let pi = "Hardware\t: BCM2835\nRevision\t: a02082\nModel\t\t: Raspberry Pi 3\n";
        for (text, expected) in [
            (format!("{generic}{a53}"), "Cortex-A53"),
            (format!("{generic}{a53}{pi}"), "Raspberry Pi 3"),
            (format!("{generic}{}", arm_cpuinfo(&[(0x41, 0xfff)])), "ARMv7 Processor rev 4 (v7l)"),
            (format!("{a53}Hardware\t: Generic DT based system\n"), "Cortex-A53"),
            (format!("{a53}Hardware\t: Qualcomm SM8250\n"), "Qualcomm SM8250"),
            (
                "Processor\t: ARMv6-compatible processor rev 7 (v6l)\n".to_owned(),
                "ARMv6-compatible processor rev 7 (v6l)",
            ),
        ] {
            assert_eq!(cpu_model(&text), expected, "{text}");
        }
    }

    #[test]
    fn other_architectures_are_named() {
        for (text, expected) in [
            ("vendor_id\t: AuthenticAMD\nmodel\t\t: 17\nmodel name\t: AMD: EPYC\n", "AMD: EPYC"),
            ("vendor_id\t: CyrixInstead\nmodel name\t:\n", "CyrixInstead"),
            ("system type\t: MediaTek MT7621\ncpu model\t\t: MIPS 1004Kc V2.15\n", "MIPS 1004Kc V2.15"),
            ("system type\t: MediaTek MT7621\n", "MediaTek MT7621"),
            ("system type\t: generic-loongson-machine\nModel Name\t\t: Loongson-3A5000\n", "Loongson-3A5000"),
            ("hart\t: 1\nisa\t: rv64imafdc_zicsr\nuarch\t: sifive,u74-mc\n", "sifive,u74-mc"),
            ("isa\t: rv64imafdc_zicsr\nmvendorid\t: 0x5b7\n", "T-Head rv64imafdc"),
            ("isa\t: rv64imafdc\nmvendorid\t: 0x123\n", "vendor 0x123 rv64imafdc"),
            ("isa\t: rv64imafdch_zicbom\nmvendorid\t: 0x0\n", "rv64imafdch"),
            ("cpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
            ("cpu\t\t: UltraSparc T5 (Niagara5)\nfpu\t: x\n", "UltraSparc T5 (Niagara5)"),
            ("cpu\t\t\t: Alpha\ncpu model\t\t: EV67\n", "EV67"),
            (
                "vendor_id       : IBM/S390\nprocessor 0: version = FF,  identification = 0133E8,  machine = 2964\n",
                "IBM/S390 machine 2964",
            ),
            (":::\nflags", ""),
        ] {
            assert_eq!(cpu_model(text), expected, "{text}");
        }
    }

    #[test]
    fn only_listed_lines_are_used() {
        let text = "processor : 0\nvendor_id : x\nflags : fpu\nCPU implementer : 0x41\nCPU variant : 0x1\nCPU part : 0xd0c\n";
        let is_listed = |line: &&str| CPUINFO_KEYS.contains(&line.split(" :").next().unwrap());
        let reduced: Vec<&str> = text.lines().filter(is_listed).collect();
        assert_eq!(cpu_model(&reduced.join("\n")), cpu_model(text));
    }
}
