//! Temperature and fan sensors from `/sys/class/hwmon` (kernel document hwmon/sysfs-interface.rst)
//! or, if there are none, from `/sys/class/thermal` (driver-api/thermal/sysfs-api.rst).

use crate::parse::{number, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("cpu.temperature", Celsius, 1, "Hottest CPU sensor.").with_range(-273.0, None),
    MetricDef::gauge("temperature.sensor", Celsius, 1, "Sensor temperature.")
        .with_dimension("sensor")
        .with_range(-273.0, None),
    MetricDef::gauge("fan.speed", Rpm, 0, "Rotation speed of the fan.").with_dimension("sensor"),
];

/// Runs at most every 5 s: sensors on slow buses (IPMI, SMBus) take a few milliseconds each.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "temperature", metrics: METRICS, cadence: Cadence::AtMostEvery(5), read };

/// Name prefixes of drivers that provide CPU sensors.
const CPU_SENSOR_DRIVERS: &[&str] = &[
    "coretemp",
    "k10temp",
    "k8temp",
    "zenpower",
    "cpu_thermal",
    "cpu-thermal",
    "x86_pkg_temp",
    "soc_thermal",
];

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let mut hottest: Option<f64> = None;
    let mut update_hottest = |chip: &str, celsius: f64| {
        if CPU_SENSOR_DRIVERS.iter().any(|name| chip.starts_with(name)) {
            hottest = Some(hottest.map_or(celsius, |hot: f64| hot.max(celsius)));
        }
    };
    let mut chips = cx.source.list("/sys/class/hwmon").unwrap_or_default();
    chips.sort();
    for chip in chips {
        let folder = format!("/sys/class/hwmon/{chip}");
        let name = text(cx.source, &format!("{folder}/name")).map_or(chip, |name| name.trim().to_owned());
        let mut files = cx.source.list(&folder).unwrap_or_default();
        files.sort();
        for file in files {
            let Some(input) = file.strip_suffix("_input") else {
                continue;
            };
            let (metric, divisor) = match input {
                _ if input.starts_with("temp") => ("temperature.sensor", 1000.0),
                _ if input.starts_with("fan") => ("fan.speed", 1.0),
                _ => continue,
            };
            // A sensor may exist without a value.
            let Ok(raw) = number::<i32>(cx.source, &format!("{folder}/{file}")) else {
                continue;
            };
            let value = f64::from(raw) / divisor;
            if metric == "temperature.sensor" {
                if !(-100.0..=300.0).contains(&value) {
                    continue;
                }
                update_hottest(&name, value);
            }
            let label = sensor_label(cx.source, &folder, input);
            cx.out.push_instance(metric, &format!("{name} {label}").into(), Raw::Gauge(value));
        }
    }
    if cx.out.part.samples.is_empty() {
        read_thermal_zones(cx, &mut update_hottest);
    }
    if let Some(hottest) = hottest {
        cx.out.gauge("cpu.temperature", hottest);
    }
    if cx.out.part.samples.is_empty() { Err(CollectError::NotAvailable) } else { Ok(()) }
}

fn sensor_label(source: &dyn Source, folder: &str, input: &str) -> String {
    text(source, &format!("{folder}/{input}_label"))
        .map_or_else(|_| input.to_owned(), |label| label.trim().to_owned())
}

fn read_thermal_zones(cx: &mut CollectContext<'_>, update_hottest: &mut dyn FnMut(&str, f64)) {
    let mut zones = cx.source.list("/sys/class/thermal").unwrap_or_default();
    zones.sort();
    for zone in zones.iter().filter(|zone| zone.starts_with("thermal_zone")) {
        let folder = format!("/sys/class/thermal/{zone}");
        let Ok(raw) = number::<i32>(cx.source, &format!("{folder}/temp")) else {
            continue;
        };
        let celsius = f64::from(raw) / 1000.0;
        if !(-100.0..=300.0).contains(&celsius) {
            continue;
        }
        let kind = text(cx.source, &format!("{folder}/type"))
            .map_or_else(|_| zone.clone(), |kind| kind.trim().to_owned());
        update_hottest(&kind, celsius);
        cx.out.push_instance(
            "temperature.sensor",
            &format!("{kind} {}", &zone[12..]).into(),
            Raw::Gauge(celsius),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    #[test]
    fn names_sensors_by_chip_and_label() {
        let text = "=== /sys/class/hwmon list\nhwmon1\nhwmon0\n=== /sys/class/hwmon/hwmon0 list\nname\ntemp1_input\ntemp1_label\ntemp2_input\n\
             === /sys/class/hwmon/hwmon0/name\ncoretemp\n=== /sys/class/hwmon/hwmon0/temp1_input\n51500\n=== /sys/class/hwmon/hwmon0/temp1_label\nPackage id 0\n\
             === /sys/class/hwmon/hwmon0/temp2_input error\nNo data available\n=== /sys/class/hwmon/hwmon1 list\nfan1_input\ntemp1_input\n\
             === /sys/class/hwmon/hwmon1/name\nnct6775\n=== /sys/class/hwmon/hwmon1/fan1_input\n1200\n=== /sys/class/hwmon/hwmon1/temp1_input\n-128000\n";
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(text.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        assert_eq!(
            format_part(&part),
            "temperature.sensor{coretemp Package id 0} 51.5\nfan.speed{nct6775 fan1} 1200\ncpu.temperature 51.5\n"
        );
    }

    #[test]
    fn falls_back_to_thermal_zones() {
        let text = "=== /sys/class/thermal list\ncooling_device0\nthermal_zone0\n=== /sys/class/thermal/thermal_zone0/type\ncpu-thermal\n\
                    === /sys/class/thermal/thermal_zone0/temp\n44000\n";
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(text.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        assert_eq!(format_part(&part), "temperature.sensor{cpu-thermal 0} 44\ncpu.temperature 44\n");
        assert_eq!(collect_files(&COLLECTOR, &[]), Err(CollectError::NotAvailable));
    }
}
