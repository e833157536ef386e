//! Rings of points around which keys belong to engines.
//!
//! One is the reference router's, point by point, so that a migration moves no
//! session: each engine has 160 points, the MD5 of `URL-0` … `URL-159` as
//! numbers; a key belongs to the first point after its own MD5, around the
//! ring. (The layout is that of uhashring 2.3, which the reference uses.) The
//! other stands in for rendezvous hashing where there are too many engines to
//! look at each.

use md5::{Digest, Md5};
use rapidhash::v3::rapidhash_v3;

/// Points of one engine on the reference's ring.
const POINTS: usize = 160;
/// Points of an engine of average weight on our own.
const AVERAGE: f64 = 64.0;

/// The points of some engines, by their positions in a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring<P> {
    points: Vec<(P, u32)>,
}

/// What a key or a point of the reference's ring hashes to.
fn md5(parts: &[&[u8]]) -> u128 {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    u128::from_be_bytes(md5.finalize().into())
}

/// What a text hashes to, in this and in every other process: engines' URLs,
/// and the keys that are placed among them.
#[must_use]
pub fn hash(text: &[u8]) -> u64 {
    rapidhash_v3(text)
}

/// Two hashes in one: every bit depends on every bit (`SplitMix64`'s finish).
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let mut mixed = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl Ring<u128> {
    /// The reference's ring of engines with these URLs.
    #[must_use]
    pub fn reference<'a>(urls: impl Iterator<Item = &'a str>) -> Self {
        let mut points = Vec::new();
        for (index, url) in (0u32..).zip(urls) {
            for point in 0..POINTS {
                let number = format!("-{point}");
                points.push((md5(&[url.as_bytes(), number.as_bytes()]), index));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The owners of a key that is a hash already.
    pub fn owners_of(&self, hash: u64) -> impl Iterator<Item = usize> {
        self.after(u128::from(hash) << 64 | u128::from(mix(hash, 1)))
    }

    /// The owners of a key by name.
    pub fn owners<'a>(&'a self, key: &str) -> impl Iterator<Item = usize> + use<'a> {
        self.after(md5(&[key.as_bytes()]))
    }
}

impl Ring<u64> {
    /// A ring of our own, of engines with these hashes and weights.
    #[must_use]
    pub fn weighted(hashes: &[u64], weights: &[f64]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 engines")]
        let average = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let mut points = Vec::new();
        for ((hash, weight), index) in hashes.iter().zip(weights).zip(0u32..) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounded here"
            )]
            let count = (AVERAGE * weight / average).round().clamp(1.0, 1e5) as u64;
            if *weight > 0.0 {
                points.extend((0..count).map(|point| (mix(*hash, point), index)));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The owners of a key by hash.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        self.after(key)
    }
}

impl<P: Ord + Copy> Ring<P> {
    /// What its points take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.points.as_slice())
    }

    /// The positions of engines in the order in which they own what is at
    /// `point`: the owner first, then those that would own it without the ones
    /// before. Engines come more than once.
    fn after(&self, point: P) -> impl Iterator<Item = usize> {
        let after = self.points.partition_point(|(known, _)| *known <= point);
        let (before, from) = self.points.split_at(after);
        from.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_references_ring_has_all_its_points() {
        let ring = Ring::reference(["http://a:8000", "http://b:8000"].into_iter());
        assert_eq!(ring.points.len(), 320);
    }

    #[test]
    fn without_the_owner_the_next_one_owns() {
        let urls = ["http://a:1", "http://b:1", "http://c:1"];
        let ring = Ring::reference(urls.into_iter());
        for n in 0..100 {
            let key = format!("user-{n}");
            let owner = ring.owners(&key).next().unwrap();
            let rest = urls.iter().enumerate().filter(|(at, _)| *at != owner);
            let rest: Vec<&str> = rest.map(|(_, url)| *url).collect();
            let without = Ring::reference(rest.iter().copied());
            let expected = rest[without.owners(&key).next().unwrap()];
            let next = ring.owners(&key).find(|at| *at != owner).unwrap();
            assert_eq!(urls[next], expected);
        }
    }

    #[test]
    fn no_engines_no_owner() {
        assert_eq!(Ring::reference(std::iter::empty()).owners("x").next(), None);
        assert_eq!(Ring::weighted(&[], &[]).owners(7).next(), None);
    }

    #[test]
    fn our_ring_follows_weights_and_moves_only_what_it_must() {
        let hashes: Vec<u64> = (0..2000u64).map(|n| mix(n, 1)).collect();
        let mut weights = vec![1.0; 2000];
        weights[7] = 20.0;
        weights[8] = 0.0;
        let ring = Ring::weighted(&hashes, &weights);
        let fewer = Ring::weighted(&hashes[..1999], &weights[..1999]);
        let mut counts = vec![0; 2000];
        for key in 0..100_000 {
            let key = mix(key, 3);
            let owner = ring.owners(key).next().unwrap();
            counts[owner] += 1;
            let without = fewer.owners(key).next().unwrap();
            // A point more or less for the others, as the average moves.
            assert!(owner == without || owner == 1999 || counts[without] > 0);
        }
        assert_eq!(counts[8], 0);
        assert!((600..1500).contains(&counts[7]), "{}", counts[7]);
    }
}
