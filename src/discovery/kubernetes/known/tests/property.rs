//! Whatever happens to pods, and whatever of it is not told: the engines are those
//! that the server's objects mean.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A pod as the server has it.
#[derive(Debug, Clone)]
struct Model {
    uid: usize,
    ip: usize,
    is_ready: bool,
    is_terminating: bool,
    has_ended: bool,
    is_selected: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// Another uid, if there is one of that name.
    Create(usize, usize),
    Readiness(usize, bool),
    Terminate(usize),
    Delete(usize),
    End(usize),
    Relabel(usize),
    Move(usize, usize),
    /// The last event is told once more.
    Twice,
    /// What happens from now on is not told, until there is a list.
    Lose,
    /// A list of so many objects that breaks off.
    HalfAList(usize),
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let (name, ip) = (0..4usize, 0..4usize);
    prop_oneof![
        4 => (name.clone(), ip.clone()).prop_map(|(name, ip)| Step::Create(name, ip)),
        6 => (name.clone(), any::<bool>()).prop_map(|(name, ready)| Step::Readiness(name, ready)),
        2 => name.clone().prop_map(Step::Terminate),
        2 => name.clone().prop_map(Step::Delete),
        1 => name.clone().prop_map(Step::End),
        2 => name.clone().prop_map(Step::Relabel),
        1 => (name, ip).prop_map(|(name, ip)| Step::Move(name, ip)),
        1 => Just(Step::Twice),
        1 => Just(Step::Lose),
        1 => (0..4usize).prop_map(Step::HalfAList),
        2 => Just(Step::List),
    ]
}

/// The API server's objects, and what we have seen of them.
struct Server {
    pods: BTreeMap<usize, Model>,
    uids: usize,
    known: Known,
    is_watched: bool,
    last: Option<(bool, Value)>,
    /// All that was told one by one: the name, whether it is there, the object.
    log: Vec<(usize, bool, Value)>,
    /// uid and address of those that were ready whenever we looked, or before.
    sight: BTreeSet<(usize, usize)>,
}

impl Server {
    fn new() -> Self {
        Self {
            pods: BTreeMap::new(),
            uids: 0,
            known: known(Source::Pods),
            is_watched: false,
            last: None,
            log: Vec::new(),
            sight: BTreeSet::new(),
        }
    }

    fn json(name: usize, pod: &Model) -> Value {
        let ready = if pod.is_ready { "True" } else { "False" };
        let uid = pod.uid.to_string();
        let mut json = super::pod(
            &name.to_string(),
            &uid,
            &format!("10.0.0.{}", pod.ip),
            ready,
        );
        // To the second: uids grow, so do these.
        let second = format!("2026-11-23T{:02}:{:02}:00Z", pod.uid / 60, pod.uid % 60);
        json["metadata"]["creationTimestamp"] = json!(second);
        if pod.is_terminating {
            json["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
        }
        if pod.has_ended {
            json["status"]["phase"] = json!("Failed");
        }
        json
    }

    fn selected(&self) -> impl Iterator<Item = (&usize, &Model)> {
        self.pods.iter().filter(|(_, pod)| pod.is_selected)
    }

    /// Changes a pod, and tells of it as a watch with a selector would.
    fn change(&mut self, name: usize, change: impl FnOnce(Option<Model>) -> Option<Model>) {
        let old = self.pods.remove(&name);
        let new = change(old.clone());
        if let Some(new) = new.clone() {
            self.pods.insert(name, new);
        }
        let selected = |pod: Option<Model>| pod.filter(|pod| pod.is_selected);
        let (old, new) = (selected(old), selected(new));
        let is_other = |old: &Model| new.as_ref().is_none_or(|new| new.uid != old.uid);
        if let Some(old) = old.filter(is_other) {
            self.tell((false, Self::json(name, &old)));
        }
        if let Some(new) = new {
            self.tell((true, Self::json(name, &new)));
        }
    }

    fn tell(&mut self, (is_there, object): (bool, Value)) {
        if !self.is_watched {
            return;
        }
        if is_there {
            apply(&mut self.known, Main, &object);
        } else {
            delete(&mut self.known, Main, &object);
        }
        let name = object["metadata"]["name"].as_str().unwrap();
        self.log
            .push((name.parse().unwrap(), is_there, object.clone()));
        self.last = Some((is_there, object));
    }

    fn list(&mut self, most: usize) -> Vec<Value> {
        let all = self.selected().map(|(name, pod)| Self::json(*name, pod));
        all.take(most).collect()
    }

    fn step(&mut self, step: &Step) {
        let uids = self.uids;
        match *step {
            Step::Create(name, ip) => {
                self.uids += 1;
                let new = Model {
                    uid: uids,
                    ip,
                    is_ready: false,
                    is_terminating: false,
                    has_ended: false,
                    is_selected: true,
                };
                self.change(name, |_| Some(new));
            }
            Step::Readiness(name, is_ready) => {
                self.change(name, |pod| Some(Model { is_ready, ..pod? }))
            }
            Step::Terminate(name) => self.change(name, |pod| {
                Some(Model {
                    is_terminating: true,
                    ..pod?
                })
            }),
            Step::Delete(name) => self.change(name, |_| None),
            Step::End(name) => self.change(name, |pod| {
                Some(Model {
                    has_ended: true,
                    ..pod?
                })
            }),
            Step::Relabel(name) => self.change(name, |pod| {
                let pod = pod?;
                let is_selected = !pod.is_selected;
                Some(Model { is_selected, ..pod })
            }),
            Step::Move(name, ip) => self.change(name, |pod| Some(Model { ip, ..pod? })),
            Step::Twice => {
                if let Some(last) = self.last.clone() {
                    self.tell(last);
                }
            }
            Step::Lose => {
                self.is_watched = false;
                self.last = None;
            }
            Step::HalfAList(most) => {
                self.known.take(Main, Event::Listing);
                for object in self.list(most) {
                    self.known
                        .take(Main, Event::Item(object.to_string().as_bytes()));
                }
                self.is_watched = false;
            }
            Step::List => {
                let all = self.list(usize::MAX);
                list(&mut self.known, Main, &all);
                (self.is_watched, self.last) = (true, None);
            }
        }
    }

    /// Who is open and who is closed, straight from the objects and from what was
    /// seen of them.
    fn check(&mut self) -> Result<(), TestCaseError> {
        if !self.is_watched {
            return Ok(());
        }
        let is_open = |pod: &Model| pod.is_ready && !pod.is_terminating;
        let here: Vec<Model> = (self.selected())
            .filter(|(_, pod)| !pod.has_ended)
            .map(|(_, pod)| pod.clone())
            .collect();
        let sight = here
            .iter()
            .filter(|pod| is_open(pod) || self.sight.contains(&(pod.uid, pod.ip)));
        let sight: BTreeSet<_> = sight.map(|pod| (pod.uid, pod.ip)).collect();
        let mut expected: BTreeMap<usize, (bool, usize)> = BTreeMap::new();
        for pod in &here {
            if sight.contains(&(pod.uid, pod.ip)) {
                let best = expected.entry(pod.ip).or_insert((false, 0));
                *best = (*best).max((is_open(pod), pod.uid));
            }
        }
        let expected = expected.into_iter().map(|(ip, (is_open, uid))| {
            (
                format!("http://10.0.0.{ip}:8000"),
                format!("{uid}:8000"),
                is_open,
            )
        });
        let found = self.known.engines().into_iter().map(|found| {
            (
                found.url.text().to_owned(),
                found.identity.to_string(),
                found.is_ready,
            )
        });
        prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let places = self.known.once.len();
        prop_assert_eq!(places, here.len(), "none is remembered that is gone");
        self.sight = sight;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_set_is_the_servers(steps in proptest::collection::vec(step(), 1..60)) {
        let mut server = Server::new();
        for step in steps.into_iter().chain([Step::List]) {
            server.step(&step);
            server.check()?;
        }
    }
    /// Two events that come the wrong way round: of two objects they mean the same,
    /// of one whatever they mean is put right by the next list.
    #[test]
    fn the_order_of_events(
        steps in proptest::collection::vec(step(), 2..60),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut server = Server::new();
        server.step(&Step::List);
        // All is told, one by one.
        let is_told = |step: &&Step| {
            !matches!(step, Step::Lose | Step::HalfAList(_) | Step::List)
        };
        steps.iter().filter(is_told).for_each(|step| server.step(step));
        let mut log = server.log.clone();
        prop_assume!(log.len() > 1);
        let at = at.index(log.len() - 1);
        let are_two_objects = log[at].0 != log[at + 1].0;
        log.swap(at, at + 1);
        let mut other = known(Source::Pods);
        list(&mut other, Main, &[]);
        for (_, is_there, object) in &log {
            if *is_there {
                apply(&mut other, Main, object);
            } else {
                delete(&mut other, Main, object);
            }
        }
        if are_two_objects {
            prop_assert_eq!(told(&other), told(&server.known));
            prop_assert_eq!(other.once.len(), server.known.once.len());
        }
        let all = server.list(usize::MAX);
        for known in [&mut server.known, &mut other] {
            list(known, Main, &all);
        }
        // Whether one that is closed was ready once, only its events could say.
        let open = |known: &Known| -> Vec<String> {
            let all = told(known).into_iter();
            all.filter(|one| !one.starts_with('-')).collect()
        };
        prop_assert_eq!(open(&other), open(&server.known));
        prop_assert_eq!(other.once.len(), server.known.once.len());
    }
}
