//! The objects of one collection, as the API server told of them last.
//!
//! What is kept of an object follows from that object alone, so a list that was
//! missed, doubled or cut leaves nothing behind.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Deserialize;

use super::event::Event;
use super::known::Own;
use super::notes::{About, Notes};
use super::object::{Meta, Named};
use super::once::{Once, Served};

/// What is kept of objects of one kind.
pub(super) trait Kept: PartialEq + Sized {
    /// Its name in messages.
    const KIND: &'static str;
    /// The object as it is written.
    type Written<'a>: Deserialize<'a>;

    fn meta<'w, 'a: 'w>(written: &'w Self::Written<'a>) -> &'w Meta<'a>;

    /// What is worth keeping of it.
    fn keep(written: &Self::Written<'_>, rules: &Rules, notes: &mut Notes) -> Self;

    /// The engines that it tells of.
    fn served(&self) -> &[Served];
}

/// What is the same for all objects of a source.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) namespace: Box<str>,
    /// Where engines listen, unless they tell otherwise.
    pub(super) port: u16,
    /// Where we listen ourselves.
    pub(super) own: Own,
    /// Where they listen instead, if a pool tells; none while there is no pool.
    pub(super) pool_ports: Option<Box<[u16]>>,
}

/// What taking an event in needs beside the objects.
pub(super) struct Taking<'a> {
    pub(super) rules: &'a Rules,
    pub(super) once: &'a mut Once,
    pub(super) notes: &'a mut Notes,
}

/// An object, by its uid: another one may come under the same name.
#[derive(Debug, PartialEq)]
struct Held<T> {
    uid: Box<str>,
    kept: T,
}

/// Objects by name.
#[derive(Debug)]
struct Map<T> {
    by_name: BTreeMap<Box<str>, Rc<Held<T>>>,
    /// Engines of all.
    engines: usize,
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            engines: 0,
        }
    }
}

impl<T: Kept> Map<T> {
    /// Puts it in, unless that would be more than `most`; hands back the one that
    /// it replaces.
    fn insert(
        &mut self,
        name: &str,
        held: Rc<Held<T>>,
        most: usize,
    ) -> Result<Option<Rc<Held<T>>>, Full> {
        let old = self.by_name.get(name);
        let more = held.kept.served().len();
        let less = old.map_or(0, |old| old.kept.served().len());
        let count = self.by_name.len() + usize::from(old.is_none());
        let engines = self.engines + more - less;
        if count.max(engines) > most {
            return Err(Full);
        }
        self.engines = engines;
        Ok(self.by_name.insert(name.into(), held))
    }

    /// Each made anew; what is too much then is left out until the next list.
    fn remade(&self, again: &mut impl FnMut(About<'_>, &T) -> T, most: usize) -> Self {
        let mut made = Self::default();
        for (name, held) in &self.by_name {
            let about = About {
                kind: T::KIND,
                name,
                uid: &held.uid,
            };
            let kept = again(about, &held.kept);
            let uid = held.uid.clone();
            let _ = made.insert(name, Rc::new(Held { uid, kept }), most);
        }
        made
    }

    fn remove(&mut self, name: &str) -> Option<Rc<Held<T>>> {
        let old = self.by_name.remove(name)?;
        self.engines -= old.kept.served().len();
        Some(old)
    }
}

/// There are as many as may be kept.
struct Full;

/// The objects of one collection.
#[derive(Debug)]
pub(super) struct Objects<T> {
    live: Map<T>,
    /// What a list that is under way has brought so far.
    list: Option<Map<T>>,
    is_listed: bool,
    /// Objects at most, and engines.
    most: usize,
}

impl<T: Kept> Objects<T> {
    /// None yet; never more than `most`, nor more engines of them.
    pub(super) fn new(most: usize) -> Self {
        Self {
            live: Map::default(),
            list: None,
            is_listed: false,
            most,
        }
    }

    /// Whether they have been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed
    }

    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.live.by_name.get(name).map(|held| &held.kept)
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let all = self.live.by_name.iter();
        all.map(|(name, held)| (&**name, &held.kept))
    }

    /// Takes an event in; tells whether that changes what is kept.
    pub(super) fn take(&mut self, event: Event<'_>, taking: &mut Taking<'_>) -> bool {
        match event {
            Event::Listing => {
                self.list = Some(Map::default());
                false
            }
            Event::Item(bytes) => {
                if let Some((name, held)) = self.read(bytes, taking)
                    && let Some(list) = &mut self.list
                    && list.insert(&name, held, self.most).is_err()
                {
                    too_many::<T>(self.most, taking.notes);
                }
                false
            }
            Event::Listed => self.swap(taking.once),
            Event::Applied(bytes) => self.apply(bytes, taking),
            Event::Deleted(bytes) => self.delete(bytes, taking),
        }
    }

    /// Forgets all, as if it had never been listed.
    pub(super) fn clear(&mut self, once: &mut Once) {
        self.replace(Map::default(), once);
        self.is_listed = false;
    }

    /// Makes each anew of what is kept of it; also what a list has brought so far.
    pub(super) fn remake(&mut self, once: &mut Once, mut again: impl FnMut(About<'_>, &T) -> T) {
        let live = self.live.remade(&mut again, self.most);
        let list = self.list.as_ref();
        self.list = list.map(|list| list.remade(&mut again, self.most));
        self.replace(live, once);
    }

    fn swap(&mut self, once: &mut Once) -> bool {
        let Some(list) = self.list.take() else {
            return false;
        };
        let is_first = !std::mem::replace(&mut self.is_listed, true);
        self.replace(list, once) || is_first
    }

    /// Puts others in the place of all; tells whether they are others.
    fn replace(&mut self, new: Map<T>, once: &mut Once) -> bool {
        let old = std::mem::replace(&mut self.live, new);
        let (old, new) = (&old.by_name, &self.live.by_name);
        let is_same = old.len() == new.len()
            && (old.iter().zip(new)).all(|(old, new)| old.0 == new.0 && Rc::ptr_eq(old.1, new.1));
        if !is_same {
            let new = new.values().flat_map(|held| held.kept.served());
            new.for_each(|one| once.add(one));
            let old = old.values().flat_map(|held| held.kept.served());
            old.for_each(|one| once.remove(one));
        }
        !is_same
    }

    fn apply(&mut self, bytes: &[u8], taking: &mut Taking<'_>) -> bool {
        let Some((name, held)) = self.read(bytes, taking) else {
            return false;
        };
        let known = self.live.by_name.get(&*name);
        if known.is_some_and(|known| Rc::ptr_eq(known, &held)) {
            return false;
        }
        let Ok(old) = self.live.insert(&name, Rc::clone(&held), self.most) else {
            too_many::<T>(self.most, taking.notes);
            // What it was before, it is no more.
            return self.forget(&name, taking.once);
        };
        held.kept
            .served()
            .iter()
            .for_each(|one| taking.once.add(one));
        if let Some(old) = old {
            old.kept
                .served()
                .iter()
                .for_each(|one| taking.once.remove(one));
        }
        true
    }

    fn delete(&mut self, bytes: &[u8], taking: &mut Taking<'_>) -> bool {
        let name = match serde_json::from_slice::<Named<'_>>(bytes) {
            Ok(named) => named.metadata,
            Err(error) => {
                unreadable::<T>(bytes, &error, taking.notes);
                return false;
            }
        };
        // Another one may have come under that name since.
        let known = self.live.by_name.get(&*name.name);
        if known.is_none_or(|known| *known.uid != *name.uid) {
            return false;
        }
        self.forget(&name.name, taking.once)
    }

    /// Whether there was one.
    fn forget(&mut self, name: &str, once: &mut Once) -> bool {
        let old = self.live.remove(name);
        let served = old.iter().flat_map(|old| old.kept.served());
        served.for_each(|one| once.remove(one));
        old.is_some()
    }

    /// The object's name, and what is kept of it: what is kept already, when
    /// that is no different.
    fn read(&self, bytes: &[u8], taking: &mut Taking<'_>) -> Option<(Box<str>, Rc<Held<T>>)> {
        let written: T::Written<'_> = match serde_json::from_slice(bytes) {
            Ok(written) => written,
            Err(error) => {
                unreadable::<T>(bytes, &error, taking.notes);
                return None;
            }
        };
        let meta = T::meta(&written);
        let name: Box<str> = (*meta.name).into();
        let held = Held {
            uid: (*meta.uid).into(),
            kept: T::keep(&written, taking.rules, taking.notes),
        };
        let known = self.live.by_name.get(&name);
        let same = known.filter(|known| ***known == held).map(Rc::clone);
        Some((name, same.unwrap_or_else(|| Rc::new(held))))
    }
}

fn unreadable<T: Kept>(bytes: &[u8], error: &serde_json::Error, notes: &mut Notes) {
    let kind = T::KIND;
    let named = serde_json::from_slice::<Named<'_>>(bytes);
    let name = named
        .as_ref()
        .map_or("without a name", |named| &*named.metadata.name);
    let text = format!("{kind} {name}: cannot be read ({error}), and is not taken");
    notes.warn(&["unreadable", kind, name], &text);
}

fn too_many<T: Kept>(most: usize, notes: &mut Notes) {
    let kind = T::KIND;
    let text = format!(
        "there are more than {most} objects ({kind}), or more engines of them: others are \
         not taken; give a narrower selector, or a namespace with fewer"
    );
    notes.warn(&["too many", kind], &text);
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// What is kept of an object, and what is told of it.
    pub(in super::super) fn kept<T: Kept>(
        object: &serde_json::Value,
        rules: &Rules,
    ) -> (T, Vec<String>) {
        let bytes = serde_json::to_vec(object).unwrap();
        let written: T::Written<'_> = serde_json::from_slice(&bytes).unwrap();
        let mut notes = Notes::default();
        let kept = T::keep(&written, rules, &mut notes);
        let told = notes.warnings();
        (kept, told.into_iter().map(str::to_owned).collect())
    }

    /// Port 8000, no pool.
    pub(in super::super) fn rules() -> Rules {
        Rules {
            namespace: "ns".into(),
            port: 8000,
            own: Own::default(),
            pool_ports: None,
        }
    }
}
