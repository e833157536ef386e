//! Blocks: named groups of engines with the same metadata, the candidates of a
//! selection by attributes. An engine without a `block` is of the block that has
//! its model's name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::candidates::{CandidateSet, Layouts, Member};
use super::{Model, Snapshot};

/// Which engines of a candidate set belong together, by positions in its list.
#[derive(Debug, Default)]
pub struct Groups {
    ids: Vec<Arc<str>>,
    /// As conditions know them: of an engine without a block its model's.
    names: Vec<Arc<str>>,
    /// Where each group's members begin; one more than there are groups.
    starts: Vec<u32>,
    members: Vec<u32>,
    /// The group of each position.
    of: Vec<u32>,
}

impl Groups {
    /// Groups of positions that have the same id, in the order of the ids; with each
    /// the name that conditions know it by.
    pub(super) fn new(ids: impl Iterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        let mut by_id: BTreeMap<Arc<str>, (Arc<str>, Vec<u32>)> = BTreeMap::new();
        for ((id, name), at) in ids.zip(0..) {
            let group = by_id.entry(id).or_insert_with(|| (name, Vec::new()));
            group.1.push(at);
        }
        let count: usize = by_id.values().map(|(_, members)| members.len()).sum();
        let mut groups = Self {
            starts: vec![0],
            of: vec![0; count],
            ..Self::default()
        };
        for (id, (name, members)) in by_id {
            groups.add(id, name, &members);
        }
        groups
    }

    /// So many positions each, one group after the other.
    pub(super) fn in_turn(ids: Vec<(Arc<str>, usize)>) -> Self {
        let count = ids.iter().map(|(_, count)| count).sum();
        let mut groups = Self {
            starts: vec![0],
            of: vec![0; count],
            ..Self::default()
        };
        for (id, count) in ids {
            let from = groups.members.len();
            let members: Vec<u32> = (from..from + count).map(index).collect();
            groups.add(Arc::clone(&id), id, &members);
        }
        groups
    }

    fn add(&mut self, id: Arc<str>, name: Arc<str>, members: &[u32]) {
        let group = index(self.ids.len());
        members.iter().for_each(|at| self.of[*at as usize] = group);
        self.members.extend(members);
        self.starts.push(index(self.members.len()));
        self.ids.push(id);
        self.names.push(name);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The `n`th one's name.
    #[must_use]
    pub fn id(&self, n: usize) -> &Arc<str> {
        &self.ids[n]
    }

    /// The name by which conditions know the `n`th one.
    #[must_use]
    pub fn name(&self, n: usize) -> &Arc<str> {
        &self.names[n]
    }

    /// The positions of the `n`th one's engines.
    #[must_use]
    pub fn members(&self, n: usize) -> &[u32] {
        &self.members[self.starts[n] as usize..self.starts[n + 1] as usize]
    }

    /// The group of that position.
    #[must_use]
    pub fn of(&self, at: usize) -> usize {
        self.of[at] as usize
    }
}

fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// One block.
#[derive(Debug)]
pub struct Block {
    /// Its name.
    pub id: Arc<str>,
    /// The model that its requests are for, the first that its engines serve, with
    /// the block's engines alone as candidates.
    pub model: Arc<Model>,
}

/// All blocks, sorted by name.
#[derive(Debug)]
pub struct Blocks {
    /// The engines of all blocks, grouped by block; one that serves several
    /// models is there several times.
    pub all: Arc<Model>,
    list: Vec<Block>,
}

impl Blocks {
    /// None, of a fleet without engines.
    pub(super) fn none(nameless: &Arc<Model>) -> Self {
        Self {
            all: Arc::clone(nameless),
            list: Vec::new(),
        }
    }

    /// The blocks of these engines, sorted by URL; of those before, turns are kept.
    pub(super) fn new(
        members: &[Member],
        models: &HashMap<Arc<str>, Arc<Model>, foldhash::fast::RandomState>,
        (old, nameless): (&Snapshot, &Arc<Model>),
        (layouts, ejected): (&mut Layouts<'_>, &Arc<AtomicU32>),
    ) -> Self {
        let mut everyone = Vec::new();
        let mut ids = Vec::new();
        let mut list = Vec::new();
        for ((id, name), members) in by_block(members) {
            let Some(whole) = models.get(name) else {
                continue;
            };
            let (id, name): (Arc<str>, _) = (Arc::from(id), Arc::clone(&whole.name));
            everyone.extend(members.iter().cloned());
            ids.push((Arc::clone(&id), members.len()));
            // A selection looks at all engines, near or not.
            let is_whole = members.len() == whole.candidates.list().len();
            let model = if is_whole && whole.near.is_empty() {
                Arc::clone(whole)
            } else {
                let before = old.blocks.of_model(&id, &name);
                let before = before.map(|block| &block.model.candidates);
                let of = (whole.metrics.label(), &name);
                let candidates = CandidateSet::follow(of, before, members, (layouts, ejected));
                Arc::new(Model {
                    candidates,
                    near: Box::default(),
                    name,
                    metrics: Arc::clone(&whole.metrics),
                    gate: Arc::clone(&whole.gate),
                })
            };
            list.push(Block { id, model });
        }
        let before = Some(&old.blocks.all.candidates);
        let of = (nameless.metrics.label(), &nameless.name);
        let mut candidates = CandidateSet::ordered(of, before, everyone, (layouts, ejected));
        candidates.groups = Some(Arc::new(Groups::in_turn(ids)));
        let all = Model {
            name: Arc::clone(&nameless.name),
            candidates,
            near: Box::default(),
            metrics: Arc::clone(&nameless.metrics),
            gate: Arc::clone(&nameless.gate),
        };
        Self {
            all: Arc::new(all),
            list,
        }
    }

    /// All of them; the `n`th is the `n`th group of [`Blocks::all`].
    #[must_use]
    pub fn list(&self) -> &[Block] {
        &self.list
    }

    /// The first one of that name.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<&Block> {
        let at = self.list.partition_point(|block| *block.id < *id);
        self.list.get(at).filter(|block| *block.id == *id)
    }

    fn of_model(&self, id: &str, model: &str) -> Option<&Block> {
        let at = self.list.partition_point(|block| *block.id < *id);
        let mut same = self.list[at..].iter().take_while(|block| *block.id == *id);
        same.find(|block| *block.model.name == *model)
    }
}

/// Engines by block and model, sorted: where those of one block do not all serve
/// the same one, it is several. An engine without a block is of one that has its
/// model's name.
fn by_block(members: &[Member]) -> BTreeMap<(&str, &str), Vec<Member>> {
    let mut blocks: HashMap<(&str, &str), Vec<Member>, foldhash::fast::RandomState> =
        HashMap::default();
    for (_, spec) in members {
        let models = spec.models.iter().map(String::as_str);
        match spec.traits.block.as_deref() {
            // Adapters beside it are no candidates: they have the same metadata.
            Some(block) => blocks.extend(models.take(1).map(|model| ((block, model), Vec::new()))),
            None => blocks.extend(models.map(|model| ((model, model), Vec::new()))),
        }
    }
    for (engine, spec) in members {
        for model in &*spec.models {
            let block = spec.traits.block.as_deref().unwrap_or(model);
            if let Some(list) = blocks.get_mut(&(block, model.as_str())) {
                list.push((Arc::clone(engine), Arc::clone(spec)));
            }
        }
    }
    blocks.into_iter().collect()
}
