//! The oracle of what reads engines' pages, beside what is private to it.

use super::json;
use super::page::Page;
use super::wanted::Wanted;
use crate::fuzzing::alike;

thread_local! {
    static WANTED: Wanted = Wanted::new(&[]);
}

/// Engines' pages: however one is cut, the same is read of it.
pub fn exposition(data: &[u8]) {
    WANTED.with(|wanted| {
        let bits = |page: Page<'_>| {
            page.finish().map(|reading| {
                let values = reading.values.iter().map(|value| value.to_bits());
                (values.collect::<Vec<_>>(), reading.names)
            })
        };
        let read = alike(data, |pieces| {
            let mut page = Page::new(wanted);
            pieces.iter().for_each(|piece| page.feed(piece));
            bits(page)
        });
        if let Some((_, names)) = read {
            assert!(names.len() <= 128);
        }
        for of_json in [json::loads, json::slots] {
            let mut page = Page::new(wanted);
            of_json(data, &mut page);
            bits(page);
        }
    });
}
