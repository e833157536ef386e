//! The consistent hash ring of the reference router, point by point: so that a
//! migration moves no session.
//!
//! Each engine has 160 points, the MD5 of `URL-0` … `URL-159` as numbers; a key
//! belongs to the first point after its own MD5, around the ring. (The layout
//! is that of uhashring 2.3, which the reference router uses.)

use md5::{Digest, Md5};

/// Points of one engine.
const POINTS: usize = 160;

/// The points of some engines, by their positions in a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    points: Vec<(u128, u32)>,
}

fn hash(parts: &[&[u8]]) -> u128 {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    u128::from_be_bytes(md5.finalize().into())
}

impl Ring {
    /// The ring of engines with these URLs.
    pub(super) fn new<'a>(urls: impl Iterator<Item = &'a str>) -> Self {
        let mut points = Vec::new();
        for (index, url) in (0u32..).zip(urls) {
            for point in 0..POINTS {
                let number = format!("-{point}");
                points.push((hash(&[url.as_bytes(), number.as_bytes()]), index));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The positions of engines in the order in which they own `key`: the owner
    /// first, then those that would own it without the ones before. Engines
    /// come more than once.
    pub(super) fn owners(&self, key: &str) -> impl Iterator<Item = usize> {
        let key = hash(&[key.as_bytes()]);
        let after = self.points.partition_point(|(point, _)| *point <= key);
        let (before, from) = self.points.split_at(after);
        from.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Owners computed with Python's hashlib and bisect, after the published
    /// description of the ring.
    #[test]
    fn owners_are_the_references() {
        let urls = ["http://a:8000", "http://b:8000", "http://c:8000/"];
        let ring = Ring::new(urls.into_iter());
        assert_eq!(ring.points.len(), 480);
        for (key, owner) in VECTORS {
            assert_eq!(ring.owners(key).next(), Some(owner), "{key}");
        }
    }

    #[test]
    fn without_the_owner_the_next_one_owns() {
        let urls = ["http://a:1", "http://b:1", "http://c:1"];
        let ring = Ring::new(urls.into_iter());
        for n in 0..100 {
            let key = format!("user-{n}");
            let owner = ring.owners(&key).next().unwrap();
            let rest = urls.iter().enumerate().filter(|(at, _)| *at != owner);
            let rest: Vec<&str> = rest.map(|(_, url)| *url).collect();
            let without = Ring::new(rest.iter().copied());
            let expected = rest[without.owners(&key).next().unwrap()];
            let next = ring.owners(&key).find(|at| *at != owner).unwrap();
            assert_eq!(urls[next], expected);
        }
    }

    #[test]
    fn no_engines_no_owner() {
        assert_eq!(Ring::new(std::iter::empty()).owners("x").next(), None);
    }

    const VECTORS: [(&str, usize); 12] = [
        ("user-0", 0),
        ("user-1", 1),
        ("user-2", 2),
        ("user-3", 1),
        ("user-4", 2),
        ("12345", 0),
        ("True", 1),
        ("1.5", 2),
        ("", 0),
        ("Ünïcode", 1),
        ("a much longer session id with spaces in it", 1),
        ("user-5", 2),
    ];
}
