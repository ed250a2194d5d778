//! Temperature and fan sensors from `/sys/class/hwmon` (kernel document hwmon/sysfs-interface.rst)
//! and from the thermal zones in `/sys/class/thermal` (driver-api/thermal/sysfs-api.rst).
//!
//! Many drivers register the same sensor in both places. A thermal zone is therefore read only if
//! no hwmon chip provides its value.

use crate::parse::{number, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::{MetricDef, Unit::*};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("cpu.temperature", Celsius, 1, "Hottest CPU sensor.").with_range(-273.0, None),
    MetricDef::gauge("temperature.sensor", Celsius, 1, "Sensor temperature.")
        .with_dimension("sensor")
        .with_range(-273.0, None),
    MetricDef::gauge("temperature.max", Celsius, 1, "High limit of the sensor; absent if not set.")
        .with_dimension("sensor")
        .with_range(-273.0, None)
        .rollup_last(),
    MetricDef::gauge("temperature.critical", Celsius, 1, "Critical limit of the sensor; absent if not set.")
        .with_dimension("sensor")
        .with_range(-273.0, None)
        .rollup_last(),
    MetricDef::gauge("fan.speed", Rpm, 0, "Rotation speed of the fan.").with_dimension("sensor"),
];

/// Runs at most every 5 s: sensors on slow buses (IPMI, SMBus) take a few milliseconds each.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "temperature", metrics: METRICS, cadence: Cadence::AtMostEvery(5), read };

const HWMON: &str = "/sys/class/hwmon";
const THERMAL: &str = "/sys/class/thermal";

/// Fan speed of a 16-bit register whose bits are all set: the fan is not connected.
const MAX_FAN_REGISTER: i32 = 65_535;

/// Temperatures of an 8-bit register without a connected input, signed and unsigned. Chips give
/// them with and without a `fault` attribute. The value of a chip that reports `fault` = 0 is real.
/// Values such as 0 or -40 are also seen without a connection, but occur in cold places.
const NOT_CONNECTED_MILLIDEGREES: [i32; 2] = [127_000, 255_000];

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SensorKind {
    Temperature,
    Fan,
}

/// Sensor of a chip, or a thermal zone.
struct Sensor {
    kind: SensorKind,
    /// Instance; unique among the sensors of a kind once `assign_instances` returned.
    instance: Arc<str>,
    /// Preferred instance: chip and label.
    name: String,
    /// Attribute prefix in the chip (`temp3`).
    input: String,
    /// Directory in sysfs (`hwmon1`). Distinguishes chips of the same name, but may change at a boot.
    directory: String,
    /// Current value; `None` if the sensor is not connected or cannot be read.
    value: Option<f64>,
    max: Option<f64>,
    critical: Option<f64>,
    is_processor: bool,
}

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let chips = list_chips(cx.source);
    let mut sensors: Vec<Sensor> = chips.iter().flat_map(|chip| chip.sensors(cx.source)).collect();
    sensors.extend(read_thermal_zones(cx.source, &chips));
    // Sensors without a value take part, so that the name of a sensor does not depend on whether
    // another sensor can be read at this moment.
    assign_instances(&mut sensors);
    sensors.retain(|sensor| sensor.value.is_some());
    sensors.sort_by(|a, b| natural_order(&a.instance).cmp(&natural_order(&b.instance)));
    let mut push = |metric: &str, kind: SensorKind, value: fn(&Sensor) -> Option<f64>| {
        for sensor in sensors.iter().filter(|sensor| sensor.kind == kind) {
            if let Some(value) = value(sensor) {
                cx.out.push_instance(metric, &sensor.instance, Raw::Gauge(value));
            }
        }
    };
    push("temperature.sensor", SensorKind::Temperature, |sensor| sensor.value);
    push("temperature.max", SensorKind::Temperature, |sensor| sensor.max);
    push("temperature.critical", SensorKind::Temperature, |sensor| sensor.critical);
    push("fan.speed", SensorKind::Fan, |sensor| sensor.value);
    let processors = sensors.iter().filter(|sensor| sensor.is_processor);
    if let Some(hottest) = processors.filter_map(|sensor| sensor.value).reduce(f64::max) {
        cx.out.gauge("cpu.temperature", hottest);
    }
    if sensors.is_empty() { Err(CollectError::NotAvailable) } else { Ok(()) }
}

/// Chip in `/sys/class/hwmon` that has temperature or fan inputs.
struct Chip {
    /// Name of the directory (`hwmon1`).
    directory: String,
    /// Driver's name of the chip; not unique.
    name: Option<String>,
    /// Last part of the device link (`nvme0`, `0-0050`, `thermal_zone0`), which identifies the device.
    device: Option<String>,
    /// Directories of the attributes, by file name.
    attributes: BTreeMap<String, String>,
}

fn list_chips(source: &dyn Source) -> Vec<Chip> {
    let mut directories = source.list(HWMON).unwrap_or_default();
    directories.sort();
    directories.into_iter().filter_map(|directory| read_chip(source, directory)).collect()
}

fn read_chip(source: &dyn Source, directory: String) -> Option<Chip> {
    let folder = format!("{HWMON}/{directory}");
    let device_folder = format!("{folder}/device");
    let has_inputs = |files: &[String]| files.iter().any(|file| parse_input(file).is_some());
    let files = source.list(&folder).unwrap_or_default();
    let mut attributes = BTreeMap::new();
    if !has_inputs(&files) {
        // Kernels before 3.15, and some drivers today, create the attributes in the parent device.
        let device_files = source.list(&device_folder).unwrap_or_default();
        if !has_inputs(&device_files) {
            return None;
        }
        attributes.extend(device_files.into_iter().map(|file| (file, device_folder.clone())));
    }
    attributes.extend(files.into_iter().map(|file| (file, folder.clone())));
    let name = read_label(source, &format!("{folder}/name"))
        .or_else(|| read_label(source, &format!("{device_folder}/name")));
    let device = source.link(&device_folder).ok().and_then(|target| {
        let part = clean(target.trim_end_matches('/').rsplit('/').next()?);
        (!matches!(part.as_str(), "" | "." | "..")).then_some(part)
    });
    Some(Chip { directory, name, device, attributes })
}

impl Chip {
    /// Name that remains the same after a reboot, if the chip has a device.
    fn stable_name(&self) -> String {
        match (&self.name, &self.device) {
            (Some(name), Some(device)) if device.starts_with(name.as_str()) => device.clone(),
            (Some(name), Some(device)) => format!("{name} {device}"),
            (Some(name), None) => format!("{name} {}", self.directory),
            (None, _) => self.directory.clone(),
        }
    }

    fn has_temperature(&self) -> bool {
        self.attributes.keys().any(|file| matches!(parse_input(file), Some((_, SensorKind::Temperature))))
    }

    /// Path of an attribute, if the chip has the attribute.
    fn path(&self, input: &str, attribute: &str) -> Option<String> {
        let file = format!("{input}_{attribute}");
        self.attributes.get(&file).map(|folder| format!("{folder}/{file}"))
    }

    fn number(&self, source: &dyn Source, input: &str, attribute: &str) -> Option<i32> {
        // Readings outside of 32 bits are register contents without a meaning.
        number::<i32>(source, &self.path(input, attribute)?).ok()
    }

    fn sensors(&self, source: &dyn Source) -> Vec<Sensor> {
        let chip = self.stable_name();
        let inputs = self.attributes.keys().filter_map(|file| parse_input(file));
        let labeled: Vec<(String, Sensor)> = inputs
            .map(|(input, kind)| {
                let label = self.path(input, "label").and_then(|path| read_label(source, &path));
                let label = label.unwrap_or_else(|| input.to_owned());
                let is_temperature = kind == SensorKind::Temperature;
                let name = self.name.as_deref().unwrap_or_default();
                let mut sensor = Sensor {
                    kind,
                    instance: Arc::default(),
                    name: format!("{chip} {label}"),
                    input: input.to_owned(),
                    directory: self.directory.clone(),
                    value: self.value(source, input, kind),
                    max: None,
                    critical: None,
                    is_processor: is_temperature && is_processor_sensor(name, &label),
                };
                if is_temperature && sensor.value.is_some() {
                    let limit = |attribute| self.number(source, input, attribute).and_then(plausible_limit);
                    (sensor.max, sensor.critical) = (limit("max"), limit("crit"));
                }
                (label, sensor)
            })
            .collect();
        // `Tctl` controls the fans. On some processors it is 27 °C above the temperature of the die
        // (kernel document hwmon/k10temp.rst).
        let has_die =
            labeled.iter().any(|(label, s)| label.eq_ignore_ascii_case("tdie") && s.value.is_some());
        let mut sensors = Vec::with_capacity(labeled.len());
        for (label, mut sensor) in labeled {
            sensor.is_processor &= !(has_die && label.eq_ignore_ascii_case("tctl"));
            sensors.push(sensor);
        }
        sensors
    }

    fn value(&self, source: &dyn Source, input: &str, kind: SensorKind) -> Option<f64> {
        let fault = self.number(source, input, "fault");
        if fault.is_some_and(|fault| fault != 0) {
            return None;
        }
        let raw = self.number(source, input, "input")?;
        match kind {
            SensorKind::Fan => (0..MAX_FAN_REGISTER).contains(&raw).then(|| f64::from(raw)),
            SensorKind::Temperature if fault.is_none() && NOT_CONNECTED_MILLIDEGREES.contains(&raw) => None,
            SensorKind::Temperature => plausible_temperature(f64::from(to_millidegrees(raw)) / 1000.0),
        }
    }
}

/// Splits the name of an input attribute (`temp1_input`) into prefix and kind.
fn parse_input(file: &str) -> Option<(&str, SensorKind)> {
    let input = file.strip_suffix("_input")?;
    let kind = match input.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "temp" => SensorKind::Temperature,
        "fan" => SensorKind::Fan,
        _ => return None,
    };
    Some((input, kind))
}

/// Returns the temperature unless it is impossible. Inputs without a connection give -128, -127 or
/// below -200 °C; unset registers give some 65,000 °C. Thermocouples measure up to 300 °C.
fn plausible_temperature(celsius: f64) -> Option<f64> {
    (-100.0..=300.0).contains(&celsius).then_some(celsius)
}

/// Converts a limit to Celsius. Drivers give 0, a negative number or the maximum of a register (NVMe:
/// 65261.85) for a limit that is not set.
fn plausible_limit(millidegrees: i32) -> Option<f64> {
    (1..=250_000).contains(&millidegrees).then(|| f64::from(millidegrees) / 1000.0)
}

fn read_thermal_zones(source: &dyn Source, chips: &[Chip]) -> Vec<Sensor> {
    let mut directories = source.list(THERMAL).unwrap_or_default();
    directories.sort();
    let mut zones = Vec::new();
    for directory in directories {
        let number = directory.strip_prefix("thermal_zone").unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            let zone_type = read_label(source, &format!("{THERMAL}/{directory}/type"));
            zones.push((directory, zone_type));
        }
    }
    let covered_types = covered_zone_types(chips, &zones);
    let is_covered = |directory: &str, zone_type: Option<&String>| {
        zone_type.is_some_and(|zone_type| covered_types.contains(&unify(zone_type)))
            || chips.iter().any(|chip| chip.device.as_deref() == Some(directory))
    };
    let uncovered = zones.into_iter().filter(|(directory, kind)| !is_covered(directory, kind.as_ref()));
    uncovered.map(|(directory, zone_type)| read_zone(source, directory, zone_type)).collect()
}

/// Returns the unified types of zones whose temperature a hwmon chip provides.
fn covered_zone_types(chips: &[Chip], zones: &[(String, Option<String>)]) -> HashSet<String> {
    let chips = || chips.iter().filter(|chip| chip.has_temperature());
    let mut types: HashSet<String> = chips().filter_map(|chip| chip.name.as_deref().map(unify)).collect();
    if types.contains("coretemp") {
        types.insert("x86_pkg_temp".to_owned());
    }
    // The thermal core creates a single chip for all zones of a type, as child of the first zone.
    for (directory, zone_type) in zones {
        if chips().any(|chip| chip.device.as_ref() == Some(directory)) {
            types.extend(zone_type.as_deref().map(unify));
        }
    }
    types
}

fn read_zone(source: &dyn Source, directory: String, zone_type: Option<String>) -> Sensor {
    let folder = format!("{THERMAL}/{directory}");
    let raw = number::<i32>(source, &format!("{folder}/temp")).ok();
    let value = raw.and_then(|raw| plausible_temperature(f64::from(to_millidegrees(raw)) / 1000.0));
    let name = match &zone_type {
        Some(zone_type) => format!("{zone_type} {}", &directory["thermal_zone".len()..]),
        None => directory.clone(),
    };
    let (mut max, mut critical) = (None, None);
    if value.is_some() {
        for file in source.list(&folder).unwrap_or_default() {
            let is_trip = file.starts_with("trip_point_");
            let Some(trip) = file.strip_suffix("_type").filter(|_| is_trip) else { continue };
            let limit = match read_label(source, &format!("{folder}/{file}")).as_deref() {
                Some("hot") => &mut max,
                Some("critical") => &mut critical,
                _ => continue,
            };
            let raw = number::<i32>(source, &format!("{folder}/{trip}_temp")).ok();
            let celsius = raw.and_then(|raw| plausible_limit(to_millidegrees(raw)));
            *limit = (*limit).into_iter().chain(celsius).reduce(f64::min);
        }
    }
    let is_processor = zone_type.is_some_and(|zone_type| is_processor_sensor(&zone_type, ""));
    let input = "temp".to_owned();
    let (kind, instance) = (SensorKind::Temperature, Arc::default());
    Sensor { kind, instance, name, input, directory, value, max, critical, is_processor }
}

/// Converts the number of a sensor to millidegrees. Old vendor kernels give whole degrees. Millidegrees
/// from 0.001 to 0.2 °C are much less likely.
fn to_millidegrees(raw: i32) -> i32 {
    if (1..=200).contains(&raw) { raw * 1000 } else { raw }
}

/// Drivers of processor sensors, as unified prefixes of chip names and zone types.
const PROCESSOR_DRIVERS: &[&str] = &[
    "coretemp",
    "k8temp",
    "k10temp",
    "zenpower",
    "x86_pkg_temp",
    "bcm2711_thermal",
    "bcm2835_thermal",
    "aml_thermal",
    "armada_thermal",
    "imx_thermal",
    "sfctemp",
    "exynos",
    "s5p_tmu",
    "sunxi",
];

/// Drivers of firmware sensors, as unified prefixes. Labels distinguish the processor's sensors.
const LABELED_DRIVERS: &[&str] =
    &["scpi_sensors", "scmi_sensors", "xgene", "apm_xgene", "smpro", "ibmpowernv", "macsmc"];

/// Words for processors and their clusters, without trailing digits, in device trees of ARM and
/// RISC-V systems on a chip. Words that contain `cpu` are recognized without this list.
const PROCESSOR_WORDS: &[&str] = &[
    "soc",
    "package",
    "cluster",
    "cls",
    "big",
    "mid",
    "little",
    "bigcore",
    "midcore",
    "littlecore",
    "mpu",
    "main",
    "ihost",
    "atlas",
    "apollo",
];

/// Parts of words for components that share a name with the processor: `soc-gpu`, `cpu-skin`.
const OTHER_COMPONENTS: &[&str] = &[
    "gpu", "npu", "tpu", "vpu", "g3d", "mali", "ddr", "dram", "dimm", "mem", "modem", "mdm", "charger",
    "chg", "batt", "skin", "nvme", "ssd", "wifi", "wlan", "pmic", "buck", "vrm", "vrd", "camera", "display",
    "video", "board", "ambient", "peci",
];

/// Returns whether a sensor measures a processor. `chip` is the name of a hwmon chip or the type of
/// a thermal zone.
fn is_processor_sensor(chip: &str, label: &str) -> bool {
    let chip = unify(chip);
    match LABELED_DRIVERS.iter().any(|driver| chip.starts_with(driver)) {
        true => is_processor_name(&unify(label)),
        false => is_processor_name(&chip),
    }
}

fn is_processor_name(name: &str) -> bool {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is_other = |word: &&str| {
        matches!(*word, "vr" | "fan" | "bat" | "pa")
            || OTHER_COMPONENTS.iter().any(|part| word.contains(part))
    };
    if words.iter().any(is_other) {
        return false;
    }
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let is_processor = |word: &&str| {
        let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
        // Names of ARM cores: a53, a72.
        let is_arm_core = word.strip_prefix('a').is_some_and(|model| model.len() >= 2 && is_number(model));
        word.contains("cpu")
            || PROCESSOR_WORDS.contains(&stem)
            || is_arm_core
            || (stem == "core" && stem != *word)
    };
    PROCESSOR_DRIVERS.iter().any(|driver| name.starts_with(driver))
        || words.iter().any(is_processor)
        // IBM POWER: "Chip 0 Core 8".
        || words.windows(2).any(|pair| pair[0] == "core" && is_number(pair[1]))
}

/// Lower-cases a name and replaces `-` and spaces by `_`: hwmon names must not contain either, so
/// the thermal core replaces them in the types of zones.
fn unify(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', ' '], "_")
}

fn read_label(source: &dyn Source, path: &str) -> Option<String> {
    text(source, path).ok().map(|label| clean(&label)).filter(|label| !label.is_empty())
}

/// Replaces control characters by spaces. Firmware provides some labels unchecked.
fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ").trim().to_owned()
}

/// Assigns a unique instance to each sensor, the same for its value and its limits. Equal names are
/// extended by the input, and by the directory if the names of two chips are equal.
fn assign_instances(sensors: &mut [Sensor]) {
    // A sensor without a label has its input in its name.
    let input = |sensor: &Sensor| match sensor.name.ends_with(&sensor.input) {
        true => String::new(),
        false => format!(" {}", sensor.input),
    };
    let extensions: [&dyn Fn(&Sensor) -> String; 3] =
        [&|_| String::new(), &input, &|sensor| format!("{} {}", input(sensor), sensor.directory)];
    let mut counts = HashMap::new();
    for (step, extension) in extensions.into_iter().enumerate() {
        for sensor in sensors.iter_mut() {
            if step == 0 || counts[&(sensor.kind, sensor.instance.clone())] > 1 {
                sensor.instance = format!("{}{}", sensor.name, extension(sensor)).into();
            }
        }
        counts.clear();
        for sensor in sensors.iter() {
            *counts.entry((sensor.kind, sensor.instance.clone())).or_insert(0) += 1;
        }
    }
    // Labels are arbitrary: the label of another sensor may equal an extended name.
    let mut assigned = HashSet::new();
    for sensor in sensors {
        let mut number = 1;
        while !assigned.insert((sensor.kind, sensor.instance.clone())) {
            number += 1;
            sensor.instance = format!("{} {number}", sensor.name).into();
        }
    }
}

/// Sort key by which `temp2` precedes `temp10`: alternating text and numbers, numbers by length first.
fn natural_order(name: &str) -> Vec<(&str, usize, &str)> {
    let mut parts = Vec::new();
    let mut remaining = name;
    while !remaining.is_empty() {
        let start = remaining.find(|c: char| c.is_ascii_digit()).unwrap_or(remaining.len());
        let (text, from_number) = remaining.split_at(start);
        let end = from_number.find(|c: char| !c.is_ascii_digit()).unwrap_or(from_number.len());
        parts.push((text, end, &from_number[..end]));
        remaining = &from_number[end..];
    }
    parts
}

#[cfg(test)]
#[path = "temperature_tests.rs"]
mod tests;
