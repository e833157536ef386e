//! What engines are asked to tell, from how it is written.

use std::sync::Arc;

use super::super::Scraping;
use super::super::attribute::{Aggregate, Attribute, How, Live, MOST_OWN, OwnAttribute, Place};
use super::super::dynamic::{AggregateEntry, AttributeEntry, DynamicFile};
use super::Resolving;

impl Resolving {
    pub(super) fn scraping(&mut self, keys: &DynamicFile) -> Scraping {
        let usual = Scraping::default();
        let aperture = keys.aperture.map(|most| {
            if most < 2 {
                let message = format!("{most}: expected 2 or more, to have something to compare");
                self.wrong("aperture", message);
            }
            most as usize
        });
        let orca_sample = keys.orca_sample.unwrap_or(usual.orca_sample);
        if !(0.0..=1.0).contains(&orca_sample) {
            self.wrong("orca_sample", format!("{orca_sample}: expected 0 to 1"));
        }
        Scraping {
            own: self.own_attributes(keys),
            aperture,
            orca_sample,
        }
    }

    /// Those of the configuration's own, in the order of their names.
    pub(super) fn own_attributes(&mut self, keys: &DynamicFile) -> Arc<[OwnAttribute]> {
        let mut own = Vec::new();
        let mut count = 0;
        for (name, entry) in keys.attributes.iter().flatten() {
            let path = format!("attributes.{name}");
            let place = Live::named(name).map(Place::from).or_else(|| {
                count += 1;
                Place::own(count - 1)
            });
            let is_other = Attribute::OURS.iter().any(|(_, known)| known == name);
            let is_twice = |place| own.iter().any(|own: &OwnAttribute| own.place == place);
            match place {
                Some(place) if is_twice(place) => {
                    self.wrong(path, "is another name of one that is there already");
                }
                Some(place) if place.is_measured() => {
                    self.wrong(path, "is what we measure of engines ourselves");
                }
                _ if is_other => self.wrong(path, "is what we know of engines ourselves"),
                None => self.wrong(path, format!("is one too many: the most is {MOST_OWN}")),
                Some(place) => own.extend(self.own_attribute(&path, (name, place), entry)),
            }
        }
        own.into()
    }

    fn own_attribute(
        &mut self,
        path: &str,
        (name, place): (&str, Place),
        entry: &AttributeEntry,
    ) -> Option<OwnAttribute> {
        let scale = entry.scale.unwrap_or(1.0);
        if !scale.is_finite() {
            self.wrong(format!("{path}.scale"), format!("{scale} is no number"));
        }
        if entry.metric.is_empty() {
            self.wrong(
                format!("{path}.metric"),
                "is empty; expected a metric's name",
            );
            return None;
        }
        let how = match (&entry.over, entry.rate) {
            (Some(_), true) => {
                self.wrong(format!("{path}.rate"), "and over: keep one");
                return None;
            }
            (Some(over), false) => How::Over(over.clone()),
            (None, true) => How::Rate,
            (None, false) => How::Now,
        };
        Some(OwnAttribute {
            name: Arc::from(name),
            place,
            metric: entry.metric.clone(),
            labels: entry.labels.clone(),
            aggregate: match entry.aggregate.unwrap_or(AggregateEntry::Sum) {
                AggregateEntry::Sum => Aggregate::Sum,
                AggregateEntry::Max => Aggregate::Max,
                AggregateEntry::Min => Aggregate::Min,
                AggregateEntry::Mean => Aggregate::Mean,
            },
            how,
            scale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve;
    use super::*;

    fn resolved(attributes: &str) -> Result<Scraping, Vec<String>> {
        let file = format!(
            r#"{{"service_discovery": "static", "static_backends": "http://a:1",
                "static_models": "m", "routing_logic": "roundrobin", {attributes}}}"#
        );
        let keys: DynamicFile = serde_json::from_str(&file).unwrap();
        let settings = resolve(&keys).map(|resolved| resolved.settings.scraping);
        settings.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn own_attributes_have_places() {
        let scraping = resolved(
            r#""attributes": {
                "temperature": {"metric": "nv_gpu_temp", "aggregate": "max"},
                "requests_waiting": {"metric": "tgi_queue_size"},
                "itl_ms": {"metric": "a_sum", "over": "a_count", "scale": 1000},
                "speed": {"metric": "b_total", "rate": true, "labels": {"x": "y"}}
            }, "aperture": 5, "orca_sample": 0"#,
        )
        .unwrap();
        let places: Vec<usize> = scraping.own.iter().map(|own| own.place.index()).collect();
        let first = Live::ALL.len();
        let (itl, waiting) = (Live::ItlMs as usize, Live::RequestsWaiting as usize);
        assert_eq!(places, [itl, waiting, first, first + 1]);
        assert_eq!(scraping.own[0].how, How::Over("a_count".to_owned()));
        assert_eq!((scraping.aperture, scraping.orca_sample), (Some(5), 0.0));
        assert_eq!(resolved(r#""limits": {}"#).unwrap(), Scraping::default());
    }

    #[test]
    fn what_cannot_be_is_told() {
        let many: Vec<String> = (0..=MOST_OWN)
            .map(|n| format!(r#""own{n:02}": {{"metric": "m"}}"#))
            .collect();
        for (given, expected) in [
            (
                r#""attributes": {"in_flight": {"metric": "x"}}"#.to_owned(),
                "attributes.in_flight",
            ),
            (
                r#""attributes": {"x": {"metric": ""}}"#.to_owned(),
                "attributes.x.metric",
            ),
            (
                r#""attributes": {"x": {"metric": "a", "rate": true, "over": "b"}}"#.to_owned(),
                "attributes.x.rate",
            ),
            (
                format!(r#""attributes": {{{}}}"#, many.join(",")),
                "attributes.own16",
            ),
            (
                r#""attributes": {"queue_length": {"metric": "a"}, "requests_waiting": {"metric": "b"}}"#
                    .to_owned(),
                "attributes.requests_waiting",
            ),
            (
                r#""attributes": {"end_to_end_latency": {"metric": "a"}}"#.to_owned(),
                "attributes.end_to_end_latency",
            ),
            (
                r#""attributes": {"queue_length.average_1m": {"metric": "a"}}"#.to_owned(),
                "attributes.queue_length.average_1m",
            ),
            (r#""aperture": 1"#.to_owned(), "aperture"),
            (r#""orca_sample": 2"#.to_owned(), "orca_sample"),
        ] {
            let problems = resolved(&given).unwrap_err();
            assert!(
                problems.iter().any(|one| one.contains(expected)),
                "{problems:?}"
            );
        }
    }
}
