//! What labels and annotations of an object say of its engines.
//!
//! What is kept of them is bounded, for there may be many thousands of objects:
//! an annotation as [`validate::said`] bounds it, labels and ports by number.

use std::sync::Arc;

use super::notes::{About, Notes};
use super::object::Meta;
use super::objects::Rules;
use crate::config::Traits;
use crate::config::problem::{Problem, nearest};
use crate::config::validate::{self, MAX_SAID};
use crate::discovery::models::each_once;

/// Before each of our annotations and labels.
const PREFIX: &str = "pilotfish.dev/";
/// Which of a pool's ports a pod serves: the Gateway API inference extension's.
const ACTIVE_PORTS: &str = "inference.networking.k8s.io/active-ports";
/// The label that names a model.
const MODEL: &str = "pilotfish.dev/model";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// Labels of one engine at most, beside `pod` and `node`.
pub(super) const MOST_LABELS: usize = 64;
/// Ports of one pod at most: ranks that serve in parallel have one each, and
/// there are seldom more than GPUs in a machine, which are 8 or 16.
pub(super) const MOST_PORTS: usize = 16;

/// Our annotations, and the keys of `engines` in the dynamic file that they are.
const KEYS: [(&str, &str); 10] = [
    ("models", "models"),
    ("weight", "weight"),
    ("block", "block"),
    ("region", "region"),
    ("labels", "labels"),
    ("privacy", "privacy"),
    ("cost", "cost"),
    ("engine-type", "engine_type"),
    ("metadata", "metadata"),
    ("draining", "draining"),
];
/// The one that is no key of the file: the ports that a pod serves at.
const PORTS: &str = "ports";

/// Whether an annotation is looked at.
pub(super) fn is_known(key: &str) -> bool {
    key.starts_with(PREFIX) || key == ACTIVE_PORTS
}

/// What an object says of its engines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) models: Option<Arc<[String]>>,
    pub(super) traits: Arc<Traits>,
    /// Where it serves, when it says so.
    ports: Option<Box<[u16]>>,
    /// To which of a pool's ports it confines itself, when it does.
    active: Option<Box<[u16]>>,
}

/// Where an engine is, beside what its labels say.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) pod: Option<&'a str>,
    pub(super) node: Option<&'a str>,
    pub(super) zone: Option<&'a str>,
}

/// Reads what an object says; a value that cannot be used is noted and left out.
pub(super) fn said(
    about: About<'_>,
    meta: &Meta<'_>,
    model_label: Option<&str>,
    notes: &mut Notes,
) -> Said {
    let mut reading = Reading { about, meta, notes };
    let keys = ours(meta).filter_map(|(name, value)| Some((config_key(name)?, value)));
    let mut said = validate::said(keys);
    if said.traits.labels.len() > MOST_LABELS {
        let count = said.traits.labels.len();
        let message = format!("has {count} labels; at most {MOST_LABELS} are taken");
        said.problems.push(Problem::at("labels", message));
        said.traits.labels.clear();
    }
    for problem in &said.problems {
        reading.told(problem);
    }
    reading.unknown();
    let ports = reading.ports();
    let active = reading.active_ports();
    let traits = reading.labelled(said.traits, model_label);
    let label = meta.label(MODEL).filter(|model| !model.is_empty());
    let by_label = || Some(Arc::from([label?.to_owned()]));
    let listed = said.models.as_deref();
    let listed = listed.map(|models| each_once(models.iter().map(String::as_str)));
    Said {
        models: listed.or_else(by_label),
        traits: Arc::new(traits),
        ports,
        active,
    }
}

/// Our annotations, without what stands before each.
fn ours<'a>(meta: &'a Meta<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = meta.annotations.0.iter();
    all.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, &**value)))
}

/// An object that is being read.
struct Reading<'a, 'm> {
    about: About<'a>,
    meta: &'a Meta<'m>,
    notes: &'a mut Notes,
}

impl Reading<'_, '_> {
    /// Tells of the annotation whose key and value these are.
    fn warn(&mut self, key: &str, value: &str, message: &str) {
        let message = format!("annotation {key}: {message}");
        self.notes.warn_about(self.about, &[key, value], &message);
    }

    /// A problem of a key of the file.
    fn told(&mut self, problem: &Problem) {
        let path = &problem.path;
        let (key, inner) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let named = ours(self.meta).find(|(name, _)| config_key(name) == Some(key));
        let Some((name, value)) = named else { return };
        let message = &problem.message;
        let message = match inner.trim_start_matches('.') {
            "" => format!("{message}; it is served without it"),
            inner => format!("{inner}: {message}; it is served without it"),
        };
        self.warn(&format!("{PREFIX}{name}"), value, &message);
    }

    /// A name that is near to one of ours is a slip; others may be someone else's.
    fn unknown(&mut self) {
        let meta = self.meta;
        for (name, value) in ours(meta) {
            if name == PORTS || config_key(name).is_some() {
                continue;
            }
            let known = KEYS.iter().map(|(known, _)| *known).chain([PORTS]);
            let key = format!("{PREFIX}{name}");
            match nearest(name, known) {
                Some(near) => {
                    let message = format!("is not known; did you mean {PREFIX}{near}?");
                    self.warn(&key, value, &message);
                }
                None => {
                    let message = format!("annotation {key} is not known");
                    self.notes.aside_about(self.about, &[&key, value], &message);
                }
            }
        }
    }

    /// Where the object's engines listen, if it says so.
    fn ports(&mut self) -> Option<Box<[u16]>> {
        let (_, value) = ours(self.meta).find(|(name, _)| *name == PORTS)?;
        match own_ports(value) {
            Ok(ports) => Some(ports),
            Err(problem) => {
                let message = format!("{problem}; it is served without it");
                self.warn(&format!("{PREFIX}{PORTS}"), value, &message);
                None
            }
        }
    }

    /// The ports of the pool to which a pod confines itself: as in the extension,
    /// an empty list means none, and what is no port is passed over.
    fn active_ports(&mut self) -> Option<Box<[u16]>> {
        let mut all = self.meta.annotations.0.iter();
        let (_, value) = all.find(|(key, _)| **key == *ACTIVE_PORTS)?;
        if let Err(problem) = bounded(value) {
            let message = format!("{problem}; it is served without it");
            self.warn(ACTIVE_PORTS, value, &message);
            return None;
        }
        let items = || value.split(',').map(str::trim);
        let is_wrong = |item: &&str| !item.is_empty() && item.parse::<u16>().is_err();
        if let Some(item) = items().find(is_wrong) {
            let message = format!("{item:?} is no port, and is passed over");
            self.warn(ACTIVE_PORTS, item, &message);
        }
        let ports = items().filter_map(|item| item.parse().ok());
        Some(ports.take(MOST_PORTS).collect())
    }

    /// With the object's labels, as far as there is room.
    fn labelled(&mut self, mut traits: Traits, model_label: Option<&str>) -> Traits {
        let meta = self.meta;
        let model_label = model_label.or_else(|| meta.label("model"));
        let model_label = model_label.map(|label| ("model_label", label));
        let all = meta.labels.iter().flatten();
        let all = all.map(|(name, value)| (&**name, &**value));
        let mut left_out = 0_usize;
        for (name, value) in model_label.into_iter().chain(all) {
            if traits.labels.contains_key(name) {
                continue;
            }
            if traits.labels.len() >= MOST_LABELS {
                left_out += 1;
                continue;
            }
            traits.labels.insert(name.to_owned(), value.to_owned());
        }
        if left_out > 0 {
            let message = format!(
                "an engine has {MOST_LABELS} labels at most: {left_out} are left out, the last \
                 in their order"
            );
            self.notes.warn_about(self.about, &["labels"], &message);
        }
        traits
    }
}

impl Said {
    /// What is said of an engine at that place. Its pod and its node are told even
    /// where [`MOST_LABELS`] are there already.
    pub(super) fn traits_at(&self, place: Place<'_>) -> Arc<Traits> {
        let mut traits = Traits::clone(&self.traits);
        for (name, value) in [("pod", place.pod), ("node", place.node)] {
            if let Some(value) = value
                && !traits.labels.contains_key(name)
            {
                traits.labels.insert(name.to_owned(), value.to_owned());
            }
        }
        traits.region = traits.region.or_else(|| place.zone.map(str::to_owned));
        Arc::new(traits)
    }

    /// Where its engines listen: where it says, else at the pool's ports, else
    /// where engines usually do.
    pub(super) fn ports(&self, rules: &Rules) -> Vec<u16> {
        if let Some(ports) = &self.ports {
            return ports.to_vec();
        }
        let Some(of_pool) = &rules.pool_ports else {
            return vec![rules.port];
        };
        let is_active = |port: &u16| {
            self.active
                .as_ref()
                .is_none_or(|active| active.contains(port))
        };
        of_pool.iter().copied().filter(is_active).collect()
    }

    /// The ports that it names itself.
    pub(super) fn own_ports(&self) -> Option<&[u16]> {
        self.ports.as_deref()
    }
}

/// The zone that an object's labels name, or else the region.
pub(super) fn zone_of<'a>(meta: &'a Meta<'_>) -> Option<&'a str> {
    meta.label(ZONE).or_else(|| meta.label(REGION))
}

fn config_key(name: &str) -> Option<&'static str> {
    let known = KEYS.iter().find(|(annotation, _)| *annotation == name)?;
    Some(known.1)
}

/// As for the keys of the file: more than that is not even read.
fn bounded(text: &str) -> Result<(), String> {
    match text.len() {
        0..=MAX_SAID => Ok(()),
        length => Err(format!("has {length} bytes; at most {MAX_SAID} are read")),
    }
}

/// A list of ports.
fn own_ports(text: &str) -> Result<Box<[u16]>, String> {
    bounded(text)?;
    let mut ports = Vec::new();
    for item in text.split(',').map(str::trim) {
        match item.parse() {
            Ok(port) if port > 0 => {
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
            _ => {
                return Err(format!(
                    "{item:?} is no port; expected a list such as \"8000,8001\""
                ));
            }
        }
    }
    if ports.len() > MOST_PORTS {
        return Err(format!(
            "has {} ports; at most {MOST_PORTS} are taken",
            ports.len()
        ));
    }
    Ok(ports.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineType;
    use serde_json::{Value, json};

    fn read(labels: &Value, annotations: &Value) -> (Said, Vec<String>) {
        let meta = json!({"name": "a", "uid": "u", "labels": labels, "annotations": annotations});
        let meta = meta.to_string();
        let meta: Meta<'_> = serde_json::from_str(&meta).unwrap();
        let mut notes = Notes::default();
        let said = said(meta.about("pod"), &meta, None, &mut notes);
        let told = notes.warnings().into_iter().map(str::to_owned).collect();
        (said, told)
    }

    #[test]
    fn annotations_are_keys_of_an_engine() {
        let annotations = json!({
            "pilotfish.dev/models": r#"["a/b"]"#, "pilotfish.dev/engine-type": "vllm",
            "pilotfish.dev/labels": r#"{"app": "other", "tier": "gold"}"#,
            "pilotfish.dev/draining": "true", "pilotfish.dev/region": "here",
            "pilotfish.dev/ports": "1,2", "pilotfish.dev/inject": "true", "weight": "7"
        });
        let labels =
            json!({"app": "x", "model": "m", "pilotfish.dev/model": "not-this", "pod": "own"});
        let (said, told) = read(&labels, &annotations);
        assert_eq!(told, Vec::<String>::new());
        assert_eq!(said.models.as_deref().unwrap(), ["a/b"]);
        assert_eq!(said.own_ports(), Some(&[1, 2][..]));
        let traits = said.traits_at(Place {
            pod: Some("a"),
            node: Some("n"),
            zone: Some("there"),
        });
        assert!(traits.draining);
        assert_eq!(traits.engine_type, Some(EngineType::Vllm));
        assert_eq!(
            (traits.weight, traits.region.as_deref()),
            (1.0, Some("here"))
        );
        for (name, value) in [
            ("app", "other"),
            ("tier", "gold"),
            ("model_label", "m"),
            ("pod", "own"),
            ("node", "n"),
        ] {
            assert_eq!(traits.labels[name], value);
        }
        let (said, _) = read(&json!({"pilotfish.dev/model": "this"}), &json!({}));
        assert_eq!(said.models.as_deref().unwrap(), ["this"]);
        for nothing in [json!({}), json!({"pilotfish.dev/model": ""})] {
            assert_eq!(read(&nothing, &json!({})).0.models, None);
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_name() {
        for (key, value, expected) in [
            (
                "metadata",
                "{",
                "pod a: annotation pilotfish.dev/metadata: is not valid JSON: EOF while parsing an \
                 object at line 1 column 1; expected an object; it is served without it",
            ),
            (
                "cost",
                r#"{"input_per_mtok": "x", "output_per_mtok": 1}"#,
                "pod a: annotation pilotfish.dev/cost: input_per_mtok: \"x\": expected a number; it \
                 is served without it",
            ),
            (
                "engine-type",
                "vlm",
                "pod a: annotation pilotfish.dev/engine-type: \"vlm\": expected \"vllm\" or",
            ),
            (
                "ports",
                "http",
                "pod a: annotation pilotfish.dev/ports: \"http\" is no port; expected a list such as \
                 \"8000,8001\"; it is served without it",
            ),
            (
                "wieght",
                "2",
                "pod a: annotation pilotfish.dev/wieght: is not known; did you mean \
                 pilotfish.dev/weight?",
            ),
        ] {
            let annotations = json!({format!("{PREFIX}{key}"): value, "pilotfish.dev/block": "b"});
            let (said, told) = read(&json!({"app": "x"}), &annotations);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(expected), "{told:?}");
            assert_eq!(said.traits.block.as_deref(), Some("b"));
            assert_eq!(said.traits.weight, 1.0);
            assert!(said.own_ports().is_none());
        }
    }

    #[test]
    fn labels_are_bounded() {
        let many = |count: usize| -> Value {
            let map: serde_json::Map<_, _> = (0..count)
                .map(|n| (format!("l{n:03}"), json!("")))
                .collect();
            map.into()
        };
        let (said, told) = read(&many(MOST_LABELS + 1), &json!({}));
        assert_eq!((said.traits.labels.len(), told.len()), (MOST_LABELS, 1));
        assert!(
            told[0].contains("64 labels at most: 1 are left out"),
            "{told:?}"
        );
        let place = Place {
            pod: Some("a"),
            node: Some("n"),
            zone: None,
        };
        assert_eq!(said.traits_at(place).labels.len(), MOST_LABELS + 2);
        let (said, told) = read(&many(MOST_LABELS), &json!({}));
        assert_eq!((said.traits.labels.len(), told.len()), (MOST_LABELS, 0));
        let own = |count| json!({"pilotfish.dev/labels": many(count).to_string()});
        let (said, told) = read(&json!({"l000": "x"}), &own(MOST_LABELS));
        assert_eq!((said.traits.labels.len(), told.len()), (MOST_LABELS, 0));
        let (said, told) = read(&json!({"app": "x"}), &own(MOST_LABELS + 1));
        assert_eq!((said.traits.labels.len(), told.len()), (1, 1));
        assert!(told[0].contains("at most 64"), "{told:?}");
    }

    #[test]
    fn lists_of_ports_are_bounded() {
        for key in ["pilotfish.dev/ports", ACTIVE_PORTS] {
            for (length, expected) in [(MAX_SAID, 0), (MAX_SAID + 1, 1)] {
                let value = format!("9000,{}9001", " ".repeat(length - 9));
                let (said, told) = read(&json!({}), &json!({key: value}));
                assert_eq!(told.len(), expected, "{key}");
                let ports = said.ports.or(said.active);
                assert_eq!(ports.is_some(), expected == 0, "{key}");
            }
            // Whatever is in it, it is one short line.
            let (_, told) = read(&json!({}), &json!({key: "x\n,".repeat(MAX_SAID / 3)}));
            assert_eq!(told.len(), 1, "{key}");
            assert!(told[0].chars().count() <= 200 && !told[0].contains('\n'));
        }
    }

    #[test]
    fn zones_come_before_regions() {
        for (labels, expected) in [
            (json!({ZONE: "z", REGION: "r"}), Some("z")),
            (json!({REGION: "r"}), Some("r")),
            (json!({}), None),
        ] {
            let meta = json!({"name": "a", "uid": "u", "labels": labels}).to_string();
            let meta: Meta<'_> = serde_json::from_str(&meta).unwrap();
            assert_eq!(zone_of(&meta), expected);
        }
    }
}
