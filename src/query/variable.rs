//! What a condition looks at: its names, and how they are read.

use std::sync::atomic::Ordering::Relaxed;

use super::Vocabulary;
use super::check::Found;
use super::error::Complaint;
use super::eval::Sight;
use super::path::{Document, Path};
use crate::config::EngineType;
use crate::config::attribute::{Attribute, Live};
use crate::config::dynamic::Privacy;
use crate::fleet::Candidate;
use crate::fleet::attributes::Freshness;

/// Names in a path at most.
pub(super) const MOST_NAMES: usize = 64;

/// A number that is known of every engine.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meter {
    attribute: Attribute,
    /// Whether a block has as many as its instances together; else their mean.
    adds_up: bool,
}

impl Meter {
    /// The attribute of that name. `X.current` is `X`.
    fn named(name: &str, vocabulary: Vocabulary<'_>) -> Option<Self> {
        let known = Self::exactly(name, vocabulary);
        known.or_else(|| Self::exactly(name.strip_suffix(".current")?, vocabulary))
    }

    fn exactly(name: &str, vocabulary: Vocabulary<'_>) -> Option<Self> {
        let live = Live::named(name).map(|live| Attribute::Live(live.into()));
        let of_own = || vocabulary.own.iter().find(|own| &*own.name == name);
        let own = || of_own().map(|own| Attribute::Live(own.place));
        let mut ours = Attribute::OURS.into_iter();
        let mut ours = || ours.find(|(_, known)| *known == name);
        let attribute = live.or_else(own).or_else(|| ours().map(|(ours, _)| ours))?;
        Some(Self {
            adds_up: attribute.adds_up(),
            attribute,
        })
    }

    /// Whether it may be another from one moment to the next.
    fn is_live(&self) -> bool {
        !matches!(
            self.attribute,
            Attribute::InputPrice
                | Attribute::OutputPrice
                | Attribute::Column(_)
                | Attribute::Path(_)
        )
    }

    /// Whether it is what engines tell of themselves.
    fn is_scraped(&self) -> bool {
        matches!(self.attribute, Attribute::Live(place) if place.is_read())
    }

    /// What is known of an engine now.
    #[inline]
    pub(super) fn read(&self, of: &Candidate, by: Freshness) -> Option<f64> {
        let engine = &of.engine;
        match self.attribute {
            Attribute::Live(place) => engine.attributes.fresh(place, by),
            Attribute::InFlight => Some(f64::from(engine.in_flight.load(Relaxed))),
            Attribute::OutstandingTokens => Some(engine.outstanding.load(Relaxed) as f64),
            Attribute::Latency => engine.latency.get(by.now).map(|seconds| seconds * 1e3),
            Attribute::InputPrice => of.spec.traits.cost.map(|cost| cost.input_per_mtok),
            Attribute::OutputPrice => of.spec.traits.cost.map(|cost| cost.output_per_mtok),
            // Paths of metadata are read where they are.
            Attribute::Column(_) | Attribute::Path(_) => None,
        }
    }

    /// What is known of the block now.
    fn of_block(&self, sight: &Sight<'_>) -> Option<f64> {
        let known = sight.members().filter_map(|one| self.read(one, sight.by));
        let (mut sum, mut count) = (0.0, 0.0);
        for value in known {
            sum += value;
            count += 1.0;
        }
        let value = if self.adds_up { sum } else { sum / count };
        (count > 0.0).then_some(value)
    }
}

/// What stands in a document, of the block or of each of its instances, or is
/// known of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Variable {
    /// The block's id.
    Id,
    /// A path of the block's metadata.
    Metadata(Path),
    /// A label of the cluster that instances are in.
    Cluster(ClusterName),
    /// A label.
    Label(Box<str>),
    /// Where instances run.
    Region,
    /// How far they may be trusted.
    Privacy,
    /// The models that they serve.
    Models,
    /// Whose words they use.
    EngineType,
    /// Where they listen.
    Url,
    /// The block's value of an attribute.
    Block(Meter),
    /// Each instance's value of it.
    Each(Meter),
    /// A path of each instance's metadata.
    EachMetadata(Path),
}

/// A name under `cluster.`, and the labels that are looked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClusterName {
    /// With `cluster.` before it.
    full: Box<str>,
}

impl ClusterName {
    fn short(&self) -> &str {
        &self.full["cluster.".len()..]
    }

    fn of<'v>(&self, one: &'v Candidate) -> Option<&'v str> {
        let traits = &one.spec.traits;
        let label = |name: &str| traits.labels.get(name).map(String::as_str);
        let found = label(&self.full).or_else(|| label(self.short()));
        found.or_else(|| match self.short() {
            "id" => label("cluster"),
            "regionId" => traits.region.as_deref(),
            _ => None,
        })
    }
}

impl Variable {
    /// The names that are neither paths nor attributes.
    pub(super) const NAMES: [&'static str; 9] = [
        "id",
        "component.*",
        "cluster.*",
        "labels.*",
        "region",
        "privacy",
        "models",
        "engine_type",
        "url",
    ];

    /// The variable of that name, which is not empty: a name of ours, an
    /// attribute, else a path of the metadata.
    pub(super) fn named(name: &str, vocabulary: Vocabulary<'_>) -> Self {
        match name {
            "id" => return Self::Id,
            "region" => return Self::Region,
            "privacy" => return Self::Privacy,
            "models" => return Self::Models,
            "engine_type" => return Self::EngineType,
            "url" => return Self::Url,
            _ => {}
        }
        if name.starts_with("cluster.") {
            return Self::Cluster(ClusterName { full: name.into() });
        }
        if let Some(label) = name.strip_prefix("labels.") {
            return Self::Label(label.into());
        }
        let name = with_dots(name);
        if let Some(name) = name.strip_prefix("instances.") {
            let meter = Meter::named(name, vocabulary);
            return meter.map_or_else(|| Self::EachMetadata(Path::new(name)), Self::Each);
        }
        let meter = Meter::named(&name, vocabulary);
        meter.map_or_else(|| Self::Metadata(Path::new(&name)), Self::Block)
    }

    /// Whether it may be another from one moment to the next.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Block(meter) | Self::Each(meter) if meter.is_live())
    }

    /// Whether it is what engines tell of themselves.
    pub(super) fn is_scraped(&self) -> bool {
        matches!(self, Self::Block(meter) | Self::Each(meter) if meter.is_scraped())
    }

    /// Whether it is always a number.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Block(_) | Self::Each(_))
    }

    /// Shows each value that it has, until told to stop. Tells whether it has any.
    pub(super) fn each<'v>(
        &self,
        sight: &Sight<'v>,
        visit: &mut dyn FnMut(Found<'v>) -> bool,
    ) -> bool {
        match self {
            Self::Id => one(Some(Found::Text(sight.id)), visit),
            Self::Metadata(path) => {
                let document = sight.document();
                document.is_some_and(|at| at.each(path, &mut |value| visit(Found::Json(value))))
            }
            Self::Block(meter) => one(meter.of_block(sight).map(Found::Number), visit),
            Self::EachMetadata(path) => {
                let (mut any, mut goes_on) = (false, true);
                for one in sight.members() {
                    let document = Document::new(&one.spec.traits.metadata);
                    any |= document.each(path, &mut |value| {
                        goes_on = visit(Found::Json(value));
                        goes_on
                    });
                    if !goes_on {
                        break;
                    }
                }
                any
            }
            Self::Models => {
                let mut models = sight.members().flat_map(|one| &*one.spec.models).peekable();
                let any = models.peek().is_some();
                // Stops where the visitor has seen enough.
                let _ = models.all(|model| visit(Found::Word(model)));
                any
            }
            _ => {
                let mut all = sight.members().filter_map(|one| self.of(one, sight.by));
                let Some(first) = all.next() else {
                    return false;
                };
                let _ = visit(first) && all.all(visit);
                true
            }
        }
    }

    /// The one value of it that an instance has.
    fn of<'v>(&self, one: &'v Candidate, by: Freshness) -> Option<Found<'v>> {
        let traits = &one.spec.traits;
        let text = match self {
            Self::Cluster(name) => name.of(one),
            Self::Label(name) => traits.labels.get(&**name).map(String::as_str),
            Self::Region => traits.region.as_deref(),
            Self::Privacy => traits.privacy.map(privacy),
            Self::EngineType => traits.engine_type.map(engine_type),
            Self::Url => Some(one.engine.url.text()),
            Self::Each(meter) => return meter.read(one, by).map(Found::Number),
            _ => None,
        };
        text.map(Found::Text)
    }
}

fn one<'v>(value: Option<Found<'v>>, visit: &mut dyn FnMut(Found<'v>) -> bool) -> bool {
    value.map(visit).is_some()
}

fn privacy(privacy: Privacy) -> &'static str {
    match privacy {
        Privacy::Public => "public",
        Privacy::Internal => "internal",
        Privacy::Confidential => "confidential",
        Privacy::Restricted => "restricted",
    }
}

fn engine_type(kind: EngineType) -> &'static str {
    match kind {
        EngineType::Vllm => "vllm",
        EngineType::Sglang => "sglang",
        EngineType::Trtllm => "trtllm",
        EngineType::Llamacpp => "llamacpp",
        EngineType::Other => "other",
    }
}

/// What an aggregate is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    /// The instances themselves, which are counted.
    Instances,
    /// Their values of an attribute.
    Meter(Meter),
    /// What stands at a path of their metadata.
    Metadata(Path),
}

impl Target {
    /// The target of that name.
    pub(super) fn named(name: &str, vocabulary: Vocabulary<'_>) -> Result<Self, Complaint> {
        let name = with_dots(name);
        if name == "instances" {
            return Ok(Self::Instances);
        }
        if let Some(name) = name.strip_prefix("instances.") {
            let meter = Meter::named(name, vocabulary);
            return Ok(meter.map_or_else(|| Self::Metadata(Path::new(name)), Self::Meter));
        }
        Meter::named(&name, vocabulary)
            .map(Self::Meter)
            .ok_or_else(|| {
                let known = attributes(vocabulary);
                Complaint::of(format_args!(
                    "a target begins with instances. (instances.llm_tokens_per_second), or is \
                     an attribute"
                ))
                .meaning(&name, known)
            })
    }

    /// Whether it may be another from one moment to the next.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Meter(meter) if meter.is_live())
    }

    /// Whether it is what engines tell of themselves.
    pub(super) fn is_scraped(&self) -> bool {
        matches!(self, Self::Meter(meter) if meter.is_scraped())
    }
}

/// The names of all attributes.
pub(super) fn attributes(vocabulary: Vocabulary<'_>) -> impl Iterator<Item = &str> {
    let live = Live::ALL.into_iter().map(|(_, name)| name);
    let aliases = Live::ALIASES.into_iter().map(|(name, _)| name);
    let ours = Attribute::OURS.into_iter().map(|(_, name)| name);
    let own = vocabulary.own.iter().map(|own| &*own.name);
    live.chain(aliases).chain(ours).chain(own)
}

/// `a[0].b` as `a.0.b`; other brackets belong to names.
fn with_dots(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains('[') {
        return name.into();
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        match after.split_once(']') {
            Some((index, after)) if is_index(index) && is_end(after) && !text.is_empty() => {
                text.push('.');
                text.push_str(index);
                rest = after;
            }
            _ => {
                text.push('[');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.into()
}

fn is_index(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_end(text: &str) -> bool {
    text.is_empty() || text.starts_with(['.', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_in_two_ways() {
        for (name, expected) in [
            ("a.b", "a.b"),
            ("a[0].b", "a.0.b"),
            ("a[0][12]", "a.0.12"),
            ("a[x].b", "a[x].b"),
            ("a[0]b", "a[0]b"),
            ("a[].b", "a[].b"),
            ("a[", "a["),
            ("[0].a", "[0].a"),
        ] {
            assert_eq!(with_dots(name), expected, "{name}");
        }
    }
}
