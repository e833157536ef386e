//! What requests may ask for, and how new engines begin.

use std::collections::BTreeMap;

use super::super::dynamic::{DynamicFile, RequestHeader};
use super::super::policies::{Allow, PolicySpec, SlowStart};
use super::Resolving;
use super::policies::unknown_policy;

impl Resolving {
    pub(super) fn slow_start(&mut self, keys: &DynamicFile) -> SlowStart {
        let (given, usual) = (
            keys.slow_start.clone().unwrap_or_default(),
            SlowStart::default(),
        );
        let shape = given.shape.unwrap_or(usual.shape);
        if !(0.1..=10.0).contains(&shape) {
            self.wrong("slow_start.shape", format!("{shape}: expected 0.1 to 10"));
        }
        SlowStart {
            over: given.over.map_or(usual.over, |over| over.0),
            shape,
        }
    }

    pub(super) fn allow(
        &mut self,
        keys: &DynamicFile,
        named: &mut BTreeMap<String, PolicySpec>,
    ) -> Allow {
        let headers = keys.request_headers.clone().unwrap_or_default();
        if let Some(policies) = &headers.policies {
            for name in policies {
                let of = keys
                    .policies
                    .iter()
                    .flatten()
                    .map(|(name, _)| name.as_str());
                if !of.clone().any(|known| known == name) {
                    let known: Vec<&str> = of.collect();
                    self.wrong("request_headers.policies", unknown_policy(name, &known));
                }
            }
            named.retain(|name, _| policies.contains(name));
        }
        let Some(allow) = headers.allow else {
            return Allow::default();
        };
        let has = |header| allow.contains(&header);
        Allow {
            explain: has(RequestHeader::Explain),
            policy: has(RequestHeader::Policy),
            models: has(RequestHeader::Models),
            select: has(RequestHeader::Select),
            qos: has(RequestHeader::Qos),
            engine: has(RequestHeader::Engine),
            timeout: has(RequestHeader::TimeoutMs),
            priority: has(RequestHeader::Priority),
        }
    }
}
