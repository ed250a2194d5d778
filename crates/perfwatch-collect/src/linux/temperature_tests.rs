//! Tests of the temperature collector.

use super::*;
use crate::linux::test_util::{collect_capture, collect_files, format_part};
use crate::{Capture, CollectorOptions};
use proptest::prelude::*;
use std::fmt::Write as _;

/// Builds a capture in which each line is `PATH VALUE` below `/sys/class`; directories are listed,
/// and `-> TARGET` is a link.
fn capture(lines: &str) -> Capture {
    let mut entries = String::new();
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (path, value) = line.split_once(' ').unwrap_or((line, ""));
        let path = format!("/sys/class/{path}");
        let _ = match (value.strip_prefix("-> "), value) {
            (Some(target), _) => writeln!(entries, "=== {path} link\n{target}"),
            (None, "EIO") => writeln!(entries, "=== {path} error\nInput/output error"),
            (None, value) => writeln!(entries, "=== {path}\n{value}"),
        };
        let mut child = path.as_str();
        while let Some((folder, name)) = child.rsplit_once('/') {
            let names = lists.entry(folder.to_owned()).or_default();
            if !names.iter().any(|listed| listed == name) {
                names.push(name.to_owned());
            }
            child = folder;
        }
    }
    for (folder, names) in lists.iter().filter(|(folder, _)| !folder.is_empty()) {
        let _ = writeln!(entries, "=== {folder} list\n{}", names.join("\n"));
    }
    Capture::parse(entries.as_bytes()).unwrap()
}

/// Returns the formatted samples, or the error.
fn collect(lines: &str) -> String {
    let part = collect_capture(&COLLECTOR, &capture(lines), &CollectorOptions::default());
    part.map_or_else(|error| error.to_string(), |part| format_part(&part))
}

#[test]
fn sensors_are_named_by_device_and_label() {
    let lines = "
        hwmon/hwmon10/name nvme
        hwmon/hwmon10/device -> ../../nvme1
        hwmon/hwmon10/temp1_input 67850
        hwmon/hwmon10/temp1_label Composite
        hwmon/hwmon2/name nvme
        hwmon/hwmon2/device -> ../../nvme0
        hwmon/hwmon2/temp1_input 41850
        hwmon/hwmon2/temp1_label Composite
        hwmon/hwmon3/name drivetemp
        hwmon/hwmon3/device -> ../../../0:0:0:0
        hwmon/hwmon3/temp1_input 30000
        hwmon/hwmon4/name coretemp
        hwmon/hwmon4/device -> ../../../coretemp.1
        hwmon/hwmon4/temp10_input 50000
        hwmon/hwmon4/temp10_label Core 10
        hwmon/hwmon4/temp2_input 51500
        hwmon/hwmon4/temp2_label Core 2
        hwmon/hwmon4/temp3_input EIO
        hwmon/hwmon4/temp3_label Core 3
        hwmon/hwmon5/name radio
        hwmon/hwmon5/device -> ../..
        hwmon/hwmon5/temp1_input 20000
        hwmon/hwmon5/temp1_label
        hwmon/hwmon6/temp1_input 21000
        hwmon/hwmon7/name nct6775
        hwmon/hwmon7/fan1_input 1200
        hwmon/hwmon8/name BAT0
        hwmon/hwmon8/in0_input 12000";
    assert_eq!(
        collect(lines),
        "temperature.sensor{coretemp.1 Core 2} 51.5\ntemperature.sensor{coretemp.1 Core 10} 50\n\
         temperature.sensor{drivetemp 0:0:0:0 temp1} 30\ntemperature.sensor{hwmon6 temp1} 21\n\
         temperature.sensor{nvme0 Composite} 41.85\ntemperature.sensor{nvme1 Composite} 67.85\n\
         temperature.sensor{radio hwmon5 temp1} 20\nfan.speed{nct6775 hwmon7 fan1} 1200\ncpu.temperature 51.5\n"
    );
    assert_eq!(collect_files(&COLLECTOR, &[]), Err(CollectError::NotAvailable));
}

#[test]
fn equal_names_are_extended() {
    let lines = "
        hwmon/hwmon0/name foo
        hwmon/hwmon0/temp1_input 1000
        hwmon/hwmon0/temp1_label spot
        hwmon/hwmon0/temp2_input 2000
        hwmon/hwmon0/temp2_label spot
        hwmon/hwmon0/temp3_input 3000
        hwmon/hwmon0/temp3_label spot temp2
        hwmon/hwmon0/temp4_input EIO
        hwmon/hwmon0/temp4_label edge
        hwmon/hwmon0/temp5_input 5000
        hwmon/hwmon0/temp5_label edge
        hwmon/hwmon1/name bar
        hwmon/hwmon1/device -> ../../../shared
        hwmon/hwmon1/temp1_input 6000
        hwmon/hwmon2/name bar
        hwmon/hwmon2/device -> ../../../shared
        hwmon/hwmon2/temp1_input 7000";
    assert_eq!(
        collect(lines),
        "temperature.sensor{bar shared temp1 hwmon1} 6\ntemperature.sensor{bar shared temp1 hwmon2} 7\n\
         temperature.sensor{foo hwmon0 edge temp5} 5\ntemperature.sensor{foo hwmon0 spot temp1} 1\n\
         temperature.sensor{foo hwmon0 spot temp2 hwmon0} 2\ntemperature.sensor{foo hwmon0 spot temp2 temp3 hwmon0} 3\n"
    );
    // The label of a third sensor equals the extended name of the first.
    let labels = ["s", "s", "s temp1 hwmon0", "s temp1"];
    let lines = labels.iter().zip(1..).map(|(label, number)| {
        format!("hwmon/hwmon0/temp{number}_input {number}000\nhwmon/hwmon0/temp{number}_label {label}\n")
    });
    assert_eq!(
        collect(&lines.collect::<String>()),
        "temperature.sensor{hwmon0 s temp1 hwmon0} 1\ntemperature.sensor{hwmon0 s temp1 hwmon0 2} 3\n\
         temperature.sensor{hwmon0 s temp1 temp4 hwmon0} 4\ntemperature.sensor{hwmon0 s temp2} 2\n"
    );
}

#[test]
fn attributes_of_parent_device_are_read() {
    let lines = "
        hwmon/hwmon0/device/name applesmc
        hwmon/hwmon0/device/temp1_input 55000
        hwmon/hwmon0/device/temp1_label TC0P
        hwmon/hwmon0/device/temp1_max 90000
        hwmon/hwmon0/device/fan1_input 1998
        hwmon/hwmon0/device/fan1_label Left side
        hwmon/hwmon1/name w83627hf
        hwmon/hwmon1/temp1_label System
        hwmon/hwmon1/device/temp1_input 31000
        hwmon/hwmon2/temp1_input 32000
        hwmon/hwmon2/device/name late";
    assert_eq!(
        collect(lines),
        "temperature.sensor{applesmc hwmon0 TC0P} 55\ntemperature.sensor{late hwmon2 temp1} 32\n\
         temperature.sensor{w83627hf hwmon1 System} 31\ntemperature.max{applesmc hwmon0 TC0P} 90\n\
         fan.speed{applesmc hwmon0 Left side} 1998\n"
    );
}

#[test]
fn values_of_unconnected_inputs_are_omitted() {
    let chip = |attributes: &[(&str, &str)]| -> String {
        let lines: Vec<String> =
            attributes.iter().map(|(file, value)| format!("hwmon/hwmon0/{file} {value}")).collect();
        collect(&lines.join("\n"))
    };
    for raw in ["-128000", "-127000", "-263000", "65261850", "3892314000", "127000", "255000", "", "x", "1.5"]
    {
        assert!(!chip(&[("temp1_input", raw)]).contains("sensor"), "{raw}");
    }
    for (raw, celsius) in [("-40000", "-40"), ("0", "0"), ("105500", "105.5"), ("126000", "126")] {
        let text = chip(&[("temp1_input", raw)]);
        assert_eq!(text, format!("temperature.sensor{{hwmon0 temp1}} {celsius}\n"));
    }
    assert!(!chip(&[("temp1_input", "40000"), ("temp1_fault", "1")]).contains("sensor"));
    // A chip that detects faults reports 127 °C only if its input is that hot.
    assert!(chip(&[("temp1_input", "127000"), ("temp1_fault", "0")]).contains(" 127\n"));
    assert!(chip(&[("fan1_input", "0")]).contains("fan.speed{hwmon0 fan1} 0"));
    for attributes in [
        &[("fan1_input", "65535")][..],
        &[("fan1_input", "-1")],
        &[("fan1_input", "900"), ("fan1_fault", "1")],
    ] {
        assert!(!chip(attributes).contains("fan.speed"), "{attributes:?}");
    }
}

#[test]
fn offset_temperature_is_not_that_of_the_processor() {
    let chip = |die: &str| {
        collect(&format!(
            "hwmon/hwmon0/name k10temp\nhwmon/hwmon0/temp1_input 95000\nhwmon/hwmon0/temp1_label Tctl\n\
             hwmon/hwmon0/temp2_input {die}\nhwmon/hwmon0/temp2_label Tdie\n\
             hwmon/hwmon0/temp3_input 66000\nhwmon/hwmon0/temp3_label Tccd1"
        ))
    };
    assert!(chip("68000").contains("{k10temp hwmon0 Tctl} 95\n"));
    assert!(chip("68000").ends_with("cpu.temperature 68\n"));
    assert!(chip("EIO").ends_with("cpu.temperature 95\n"));
}

#[test]
fn limits_are_reported_if_set() {
    let lines = "
        hwmon/hwmon0/name nvme
        hwmon/hwmon0/temp1_input 40850
        hwmon/hwmon0/temp1_max 81850
        hwmon/hwmon0/temp1_crit 84850
        hwmon/hwmon0/temp2_input 41850
        hwmon/hwmon0/temp2_max 65261850
        hwmon/hwmon0/temp2_crit 0
        hwmon/hwmon0/temp3_input EIO
        hwmon/hwmon0/temp3_max 80000
        thermal/thermal_zone0/type cpu-thermal
        thermal/thermal_zone0/temp 50000
        thermal/thermal_zone0/trip_point_0_type passive
        thermal/thermal_zone0/trip_point_0_temp 70000
        thermal/thermal_zone0/trip_point_1_type hot
        thermal/thermal_zone0/trip_point_1_temp 95000
        thermal/thermal_zone0/trip_point_2_type critical
        thermal/thermal_zone0/trip_point_2_temp 110000
        thermal/thermal_zone0/trip_point_3_type critical
        thermal/thermal_zone0/trip_point_3_temp 105000
        thermal/thermal_zone0/trip_point_4_type critical
        thermal/thermal_zone0/trip_point_4_temp -274000
        thermal/thermal_zone0/trip_point_5_type hot";
    assert_eq!(
        collect(lines),
        "temperature.sensor{cpu-thermal 0} 50\ntemperature.sensor{nvme hwmon0 temp1} 40.85\n\
         temperature.sensor{nvme hwmon0 temp2} 41.85\ntemperature.max{cpu-thermal 0} 95\n\
         temperature.max{nvme hwmon0 temp1} 81.85\ntemperature.critical{cpu-thermal 0} 105\n\
         temperature.critical{nvme hwmon0 temp1} 84.85\ncpu.temperature 50\n"
    );
}

#[test]
fn zones_covered_by_hwmon_are_omitted() {
    let lines = "
        hwmon/hwmon0/name cpu_thermal
        hwmon/hwmon0/device -> ../../thermal_zone0
        hwmon/hwmon0/temp1_input 50000
        hwmon/hwmon1/name coretemp
        hwmon/hwmon1/temp1_input 51000
        hwmon/hwmon2/name odd
        hwmon/hwmon2/device -> ../../thermal_zone4
        hwmon/hwmon2/temp1_input 52000
        hwmon/hwmon3/name fan-zone
        hwmon/hwmon3/fan1_input 900
        thermal/cooling_device0/type Processor
        thermal/thermal_zone0/type cpu-thermal
        thermal/thermal_zone0/temp 50000
        thermal/thermal_zone1/type x86_pkg_temp
        thermal/thermal_zone1/temp 51000
        thermal/thermal_zone4/type Odd Zone
        thermal/thermal_zone4/temp 52000
        thermal/thermal_zone5/type odd-zone
        thermal/thermal_zone5/temp 52000
        thermal/thermal_zone6/type fan-zone
        thermal/thermal_zone6/temp 40000
        thermal/thermal_zone7/type gpu-thermal
        thermal/thermal_zone7/temp 41000
        thermal/thermal_zone10/type gpu-thermal
        thermal/thermal_zone10/temp 42000
        thermal/thermal_zone11/type ath10k
        thermal/thermal_zone11/temp EIO
        thermal/thermal_zone12/temp 43000
        thermal/thermal_zonex/temp 44000";
    assert_eq!(
        collect(lines),
        "temperature.sensor{coretemp hwmon1 temp1} 51\ntemperature.sensor{cpu_thermal thermal_zone0 temp1} 50\n\
         temperature.sensor{fan-zone 6} 40\ntemperature.sensor{gpu-thermal 7} 41\n\
         temperature.sensor{gpu-thermal 10} 42\ntemperature.sensor{odd thermal_zone4 temp1} 52\n\
         temperature.sensor{thermal_zone12} 43\nfan.speed{fan-zone hwmon3 fan1} 900\ncpu.temperature 51\n"
    );
}

#[test]
fn zones_in_whole_degrees_are_recognized() {
    for (raw, celsius) in [("48", "48"), ("200", "200"), ("48000", "48"), ("0", "0"), ("-5000", "-5")] {
        let lines = format!(
            "thermal/thermal_zone0/type cpu-thermal\nthermal/thermal_zone0/temp {raw}\n\
             thermal/thermal_zone0/trip_point_0_type critical\nthermal/thermal_zone0/trip_point_0_temp 110"
        );
        let expected = format!(
            "temperature.sensor{{cpu-thermal 0}} {celsius}\ntemperature.critical{{cpu-thermal 0}} 110\n\
             cpu.temperature {celsius}\n"
        );
        assert_eq!(collect(&lines), expected);
    }
}

#[test]
fn control_characters_are_replaced() {
    let files = [
        ("/sys/class/hwmon/hwmon0/name", "a\u{1b}[2J\n"),
        ("/sys/class/hwmon/hwmon0/temp1_input", "1000\n"),
        ("/sys/class/hwmon/hwmon0/temp1_label", "\tx\ny\u{9b}\n"),
    ];
    let lists = "=== /sys/class/hwmon list\nhwmon0\n=== /sys/class/hwmon/hwmon0 list\nname\ntemp1_input\ntemp1_label\n";
    let mut capture = Capture::parse(lists.as_bytes()).unwrap();
    files.iter().for_each(|(path, content)| capture.insert(path, content.as_bytes()));
    let part = collect_capture(&COLLECTOR, &capture, &CollectorOptions::default()).unwrap();
    assert_eq!(format_part(&part), "temperature.sensor{a [2J hwmon0 x y} 1\n");
}

#[test]
fn processor_sensors_are_recognized_by_name() {
    let processors = "coretemp k8temp k10temp zenpower via_cputemp x86_pkg_temp cpu_thermal cpu-thermal soc_thermal \
        soc-thermal soc0-thermal soc_max bcm2835_thermal aml_thermal armada_thermal imx_thermal_zone cpu0-thermal \
        cpu0_thermal cpu-thermal0 cpu_thermal_zone cpul_thermal_zone cpu-0-0-top-thermal cpu-1-3-usr cpuss0-thermal \
        cpuss-0-usr package-thermal package_thermal bigcore0-thermal bigcore1-thermal littlecore-thermal \
        big-core-thermal little-core-thermal big_cluster little_cluster cluster0-thermal cluster1 cluster6-7-thermal \
        core-cluster-thermal cls0 CPU-therm MCPU-therm BCPU-therm mtktscpu exynos-therm exynos_tmu BIG MID LITTLE \
        atlas0-thermal apcpu0-thmzone ap-thermal-cpu0 mpu0-thermal main0-thermal a53-thermal a72_thermal core0-thermal \
        gold-cpus-step thermal_cluster0 cpu_hwmon sfctemp";
    let others = "gpu-thermal gpu0-thermal GPU-therm gpuss-0-usr npu-thermal ddr-thermal ddr_thermal center-thermal \
        modem-thermal modem-skin-usr mdm-core0-step charger-thermal battery mtktsbattery skin-thermal cpu-skin nvme \
        nvme0-thermal wifi-thermal iwlwifi_1 pmic-thermal PMIC-Die soc-gpu-thermal cpu-vrm cpu-board-thermal acpitz \
        pch_skylake drivetemp spd5118 core_thermal center wlan soc_modem ddr-cluster5-thermal aoss0-thermal ath10k \
        G3D peci_cputemp thermal-fan-est a8 cpu_fan nct6775 amdgpu";
    for name in processors.split_whitespace() {
        assert!(is_processor_sensor(name, "temp1"), "{name}");
    }
    for name in others.split_whitespace().chain(["INT3400 Thermal", ""]) {
        assert!(!is_processor_sensor(name, "CPU"), "{name}");
    }
    for (chip, label, expected) in [
        ("scpi_sensors", "aml_thermal", true),
        ("scpi_sensors", "SoC", true),
        ("scmi_sensors", "CPU0_TEMP", true),
        ("scmi_sensors", "pmic", false),
        ("apm_xgene", "SoC Temperature", true),
        ("smpro_hwmon", "SOC VRD", false),
        ("ibmpowernv", "Chip 0 Core 8", true),
        ("ibmpowernv", "Chip 0 DIMM 3", false),
    ] {
        assert_eq!(is_processor_sensor(chip, label), expected, "{chip} {label}");
    }
}

/// Text from a small set, which collides often, or arbitrary text.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "(a|b|temp1|temp2| |temp1 hwmon0){0,3}",
        "[ab]{250,260}",
        any::<String>(),
        (-400_000..400_000i64).prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

proptest! {
    #[test]
    fn every_series_is_unique(files in proptest::collection::btree_map((0..4usize, 0..24usize), any_text(), 0..80)) {
        const FILES: [&str; 24] = [
            "name", "temp_input", "temp1_input", "temp2_input", "temp3_input", "fan1_input", "fan2_input", "temp1_label",
            "temp2_label", "temp3_label", "fan1_label", "temp1_max", "temp1_crit", "temp2_fault", "type", "temp",
            "trip_point_0_type", "trip_point_0_temp", "device/temp1_input", "device/temp2_input", "device/temp1_label",
            "device/temp2_label", "device/name", "temp10_input",
        ];
        const FOLDERS: [&str; 4] = ["hwmon/hwmon0", "hwmon/hwmon1", "thermal/thermal_zone0", "thermal/thermal_zone1"];
        let mut lines = String::new();
        for folder in &FOLDERS[..2] {
            let _ = writeln!(lines, "{folder}/device -> ../../../a");
        }
        for (folder, file) in files.keys() {
            let _ = writeln!(lines, "{}/{}", FOLDERS[*folder], FILES[*file]);
        }
        let mut capture = capture(&lines);
        for ((folder, file), content) in &files {
            capture.insert(&format!("/sys/class/{}/{}", FOLDERS[*folder], FILES[*file]), content.as_bytes());
        }
        if let Ok(part) = collect_capture(&COLLECTOR, &capture, &CollectorOptions::default()) {
            let mut series = HashSet::new();
            for sample in &part.samples {
                prop_assert!(series.insert((sample.metric.name, &sample.instance)), "{:?}", sample);
                prop_assert!(!sample.instance.contains(|c: char| c.is_control()));
                let Raw::Gauge(value) = sample.raw else { unreachable!("sensors are gauges") };
                prop_assert!(value.is_finite());
            }
        }
    }
}
