//! Engines by how near they are to us: with `prefer_local`, a model has beside
//! all its engines the nearest ones as candidate sets of their own, which are
//! asked first.

use std::net::IpAddr;
use std::sync::Arc;

use super::candidates::Layouts;
use super::{EngineSpec, Model};
use crate::config::Locality;

/// The label of an engine that names its node.
const NODE: &str = "node";

/// How near an engine is; the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// In our own pod, or on this host.
    Pod,
    /// On our node.
    Node,
    /// In our zone.
    Zone,
}

impl Nearness {
    /// All of them with their names.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Pod, "pod"),
        (Self::Node, "node"),
        (Self::Zone, "zone"),
    ];

    /// How near to us an engine is of which that is said; `None`: it is further
    /// away, or nobody knows.
    ///
    /// What is said of it comes before a loopback address, which may be a tunnel.
    #[must_use]
    pub fn of(spec: &EngineSpec, locality: &Locality) -> Option<Self> {
        let (host, traits) = (spec.url.host(), &spec.traits);
        let address = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        let mut ours = locality.pod_ips.iter().map(IpAddr::to_canonical);
        if address.is_some_and(|ip| ours.any(|ours| ours == ip)) {
            return Some(Self::Pod);
        }
        let is_same = |ours: &Option<String>, its: Option<&String>| {
            ours.as_ref().zip(its).map(|(ours, its)| ours == its)
        };
        let node = is_same(&locality.node, traits.labels.get(NODE));
        let zone = is_same(&locality.zone, traits.region.as_ref());
        let is_elsewhere = node == Some(false) || zone == Some(false);
        let is_loopback = address.map_or_else(
            || host.eq_ignore_ascii_case("localhost"),
            |ip| ip.is_loopback(),
        );
        match (node, zone) {
            _ if is_loopback && !is_elsewhere => Some(Self::Pod),
            (Some(true), _) => Some(Self::Node),
            (_, Some(true)) => Some(Self::Zone),
            _ => None,
        }
    }
}

/// The nearest of a model's engines, then those with the next ones among them, ...:
/// only such sets as are neither empty, nor the last one again, nor all.
///
/// Whoever has no weight, or is to get nothing new, is in none: alone they would
/// get what others should.
pub(super) fn tiers(
    whole: &Model,
    old: Option<&Model>,
    (locality, layouts): (&Locality, &mut Layouts<'_>),
) -> Box<[Arc<Model>]> {
    let set = &whole.candidates;
    let weights = set.list.iter().zip(&set.layout.weights).enumerate();
    let able = weights.filter(|(_, (_, weight))| **weight > 0.0);
    let near = able.map(|(at, (one, _))| (at, Nearness::of(&one.spec, locality)));
    let near: Vec<(usize, Option<Nearness>)> = near.collect();
    let mut tiers = Vec::new();
    let mut last = 0;
    for (tier, _) in Nearness::ALL {
        let within = || {
            let within = near
                .iter()
                .filter(|(_, of)| of.is_some_and(|of| of <= tier));
            within.map(|(at, _)| *at)
        };
        let count = within().count();
        if count == last || count == near.len() {
            continue;
        }
        last = count;
        let mut before = old.iter().flat_map(|old| old.near.iter());
        let before = before.find(|model| model.candidates.tier == Some(tier));
        let before = before.map(|model| &model.candidates);
        tiers.push(Arc::new(Model {
            name: Arc::clone(&whole.name),
            candidates: set.part((tier, within()), before, layouts),
            near: Box::default(),
            metrics: Arc::clone(&whole.metrics),
            gate: Arc::clone(&whole.gate),
        }));
    }
    tiers.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::testing::spec;
    use super::super::{Closed, Fleet, Snapshot};
    use super::*;
    use crate::config::policies::{Affinity, Placement, PolicyKind, PolicySpec};
    use crate::config::{Routing, Settings, Traits};
    use crate::metrics::ModelRegistry;

    fn at(url: &str, node: &str, zone: &str) -> EngineSpec {
        let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let labels = told(node).map(|node| (NODE.to_owned(), node));
        EngineSpec {
            traits: Arc::new(Traits {
                region: told(zone),
                labels: labels.into_iter().collect(),
                ..Traits::default()
            }),
            ..spec(url, &["m"])
        }
    }

    fn here() -> Locality {
        Locality {
            pod_ips: ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into(),
            node: Some("n".to_owned()),
            zone: Some("z".to_owned()),
        }
    }

    #[test]
    fn nearness_is_what_is_said_and_then_the_address() {
        use Nearness::{Node, Pod, Zone};
        for (url, node, zone, of, of_unknown) in [
            ("http://127.0.0.1:1", "", "", Some(Pod), Some(Pod)),
            ("http://127.9.9.9:1", "n", "z", Some(Pod), Some(Pod)),
            ("http://[::1]:1", "", "", Some(Pod), Some(Pod)),
            ("http://[::ffff:127.0.0.1]:1", "", "", Some(Pod), Some(Pod)),
            ("http://LocalHost:1", "", "", Some(Pod), Some(Pod)),
            ("http://localhost.example:1", "", "", None, None),
            ("http://10.0.0.1:1", "", "", Some(Pod), None),
            ("http://10.0.0.1:1", "other", "other", Some(Pod), None),
            ("http://[::ffff:10.0.0.1]:1", "", "", Some(Pod), None),
            ("http://[fd00:0::1]:1", "", "", Some(Pod), None),
            ("http://10.0.0.2:1", "n", "z", Some(Node), None),
            ("http://10.0.0.2:1", "n", "", Some(Node), None),
            ("http://10.0.0.2:1", "other", "z", Some(Zone), None),
            ("http://10.0.0.2:1", "", "z", Some(Zone), None),
            ("http://10.0.0.2:1", "other", "other", None, None),
            ("http://10.0.0.2:1", "", "", None, None),
            ("http://engine:1", "n", "", Some(Node), None),
            // A tunnel.
            ("http://127.0.0.1:1", "", "other", None, Some(Pod)),
            ("http://127.0.0.1:1", "other", "z", Some(Zone), Some(Pod)),
        ] {
            let spec = at(url, node, zone);
            let found = Nearness::of(&spec, &here());
            assert_eq!(found, of, "{url} {node} {zone}");
            let found = Nearness::of(&spec, &Locality::default());
            assert_eq!(found, of_unknown, "{url}, of nobody knows where");
        }
        for (at, (tier, _)) in Nearness::ALL.into_iter().enumerate() {
            assert_eq!(tier as usize, at);
        }
    }

    fn settings(prefer_local: bool, kind: PolicyKind) -> Arc<Settings> {
        Arc::new(Settings {
            routing: Routing {
                prefer_local,
                policy: PolicySpec::plain("p", kind),
                ..Routing::default()
            },
            ..Settings::default()
        })
    }

    /// The tiers of a model, each with its engines' first letters.
    fn tiers(snapshot: &Snapshot, model: &str) -> Vec<(Nearness, String)> {
        let near = snapshot
            .model(model)
            .map_or(&snapshot.all.near, |of| &of.near);
        let letters = |model: &Arc<Model>| {
            let urls = model.candidates.list.iter();
            urls.map(|one| one.engine.url.host().chars().next().unwrap())
                .collect()
        };
        let tiers = near.iter();
        tiers
            .map(|one| (one.candidates.tier.unwrap(), letters(one)))
            .collect()
    }

    fn draining(spec: EngineSpec, weight: f64, draining: bool) -> EngineSpec {
        let traits = Traits {
            weight,
            ..(*spec.traits).clone()
        };
        EngineSpec {
            traits: Arc::new(traits),
            closed: draining.then_some(Closed::Draining),
            ..spec
        }
    }

    #[test]
    fn there_are_as_many_tiers_as_differ() {
        use Nearness::{Node, Pod, Zone};
        let a = || at("http://localhost:1", "", "");
        let (b, c) = (|| at("http://b:1", "n", "z"), || at("http://c:1", "", "z"));
        let (d, e) = (|| at("http://d:1", "", "y"), || at("http://e:1", "n", ""));
        let tier = |of: Nearness, engines: &str| (of, engines.to_owned());
        for (specs, expected) in [
            (
                vec![a(), b(), c(), d()],
                vec![tier(Pod, "l"), tier(Node, "bl"), tier(Zone, "bcl")],
            ),
            (vec![b(), c(), d()], vec![tier(Node, "b"), tier(Zone, "bc")]),
            (vec![a(), c(), d()], vec![tier(Pod, "l"), tier(Zone, "cl")]),
            (vec![b(), e(), d()], vec![tier(Node, "be")]),
            // All is asked in any case.
            (vec![a(), c()], vec![tier(Pod, "l")]),
            (vec![c()], vec![]),
            (vec![d()], vec![]),
            (vec![], vec![]),
            // Alone they would get what they are not to get.
            (
                vec![draining(a(), 1.0, true), c(), d()],
                vec![tier(Zone, "c")],
            ),
            (
                vec![draining(a(), 0.0, false), c(), d()],
                vec![tier(Zone, "c")],
            ),
            (vec![a(), draining(d(), 0.0, false)], vec![]),
        ] {
            let mut fleet = Fleet::at(here(), ModelRegistry::default());
            fleet.apply(settings(true, PolicyKind::Random), specs.clone());
            let snapshot = fleet.published().load_full();
            assert_eq!(tiers(&snapshot, "m"), expected);
            assert_eq!(tiers(&snapshot, ""), expected);
            fleet.apply(settings(false, PolicyKind::Random), specs);
            let snapshot = fleet.published().load_full();
            assert_eq!(tiers(&snapshot, "m"), []);
        }
    }

    #[test]
    fn tiers_keep_their_turns_statistics_and_rings() {
        let affinity = Affinity {
            keys: Vec::new(),
            placement: Placement::Ring,
        };
        let settings = settings(true, PolicyKind::Session(affinity));
        let specs = || {
            vec![
                at("http://b:1", "n", "z"),
                at("http://c:1", "", "z"),
                at("http://d:1", "", ""),
            ]
        };
        let mut fleet = Fleet::at(here(), ModelRegistry::default());
        fleet.apply(Arc::clone(&settings), specs());
        let before = fleet.published().load_full();
        let before = before.model("m").unwrap();
        before.near[1].candidates.cursor.store(7, Relaxed);
        fleet.apply(settings, specs());
        let after = fleet.published().load_full();
        let after = after.model("m").unwrap();
        let set = &after.near[1].candidates;
        assert_eq!(set.cursor.load(Relaxed), 7);
        assert_eq!(after.near[0].candidates.cursor.load(Relaxed), 0);
        assert_eq!(after.candidates.cursor.load(Relaxed), 0);
        assert_ne!(set.serial, after.candidates.serial);
        let ring = |model: &Model| model.candidates.layout.ring.clone().unwrap();
        assert!(Arc::ptr_eq(&ring(&before.near[1]), &ring(&after.near[1])));
        assert!(Arc::ptr_eq(
            &set.list[0].served,
            &after.candidates.list[0].served
        ));
        assert!(Arc::ptr_eq(&after.near[0].gate, &after.gate));
    }
}
