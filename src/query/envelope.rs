//! The reference's documents around a query: of a search, and of a filter.
//!
//! Nothing of the query itself is read here; what is told is where it stands.

use serde_json::{Map, Value};

use super::error::{Complaint, Place, QueryError, object, only};

type Object = Map<String, Value>;

/// The one template that is built in.
const TEMPLATE: &str = "Parser/V1";
/// The one kind of thing that can be selected.
const BLOCK: &str = "block";
const RULE: &str = "rankingPolicyRule";
/// Of a rule, and of parameters: taken, and without effect.
const WITHOUT_EFFECT: [&str; 3] = ["settings", "executionMode", "policyCodePath"];
const WITHOUT_EFFECT_AMONG_PARAMETERS: [&str; 3] = ["METRICS_BASE_URL", "user_query", "return"];
/// The keys of the short form.
const SHORT: [&str; 9] = [
    "filter",
    "goals",
    "optimization_goals",
    "application_type",
    "APP_MAP",
    "policy",
    "policyRuleURI",
    "parameters",
    "matchType",
];

/// What a document asks for, and where in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Envelope<'a> {
    /// `header.templateUri`, which can only be the built-in one.
    pub template: Option<&'a str>,
    /// What is to be selected, which can only be a block.
    pub match_type: Option<&'a str>,
    /// The policy that ranks: `name:version-tag`.
    pub policy: Option<&'a str>,
    /// Where it stands, or would: a JSON pointer.
    pub policy_at: String,
    /// The filter, and where it stands: a JSON pointer.
    pub filter: Option<(&'a Value, String)>,
    /// What the block is for.
    pub application_type: Option<&'a str>,
    /// Use cases by application type.
    pub app_map: Option<&'a Map<String, Value>>,
    /// `[{name, weight}]` or `[{attribute, direction, weight}]`, and where: a JSON
    /// pointer.
    pub goals: Option<(&'a [Value], String)>,
    /// What the user wants, in words.
    pub query_string: Option<&'a str>,
    /// All that is given to the policy.
    pub parameters: Option<&'a Map<String, Value>>,
    /// What was given and has no effect, but that matchers may read `user_query`.
    pub ignored: Vec<&'static str>,
}

impl<'a> Envelope<'a> {
    /// Reads a search: the reference's `{header, body}`, with or without `values`
    /// within `body` and `rankingPolicyRule`, or what stands in there; or the short
    /// form `{filter, goals, application_type, policy, parameters}`.
    ///
    /// # Errors
    /// Says where it has the wrong shape, and what was expected.
    pub fn search(document: &'a Value) -> Result<Self, QueryError> {
        Self::within(document, &|envelope, map, place| {
            envelope.search_values(map, place)
        })
    }

    /// Reads a filter: the same around `{matchType, filter}`.
    ///
    /// # Errors
    /// Says where it has the wrong shape, and what was expected.
    pub fn filter(document: &'a Value) -> Result<Self, QueryError> {
        Self::within(document, &|envelope, map, place| {
            envelope.take_filter(map, place)?;
            if envelope.filter.is_some() {
                return Ok(());
            }
            let complaint = Complaint::of("filter is missing: {matchType, filter}");
            Err(place.wrong(complaint))
        })
    }

    /// Reads what is around the values, and has them read.
    fn within(
        document: &'a Value,
        read: &dyn Fn(&mut Self, &'a Object, &Place<'_>) -> Result<(), QueryError>,
    ) -> Result<Self, QueryError> {
        let mut envelope = Self::default();
        let top = Place::Top("");
        let map = object(document, &top, "an object: {header, body}")?;
        if let Some(header) = given(map, "header") {
            let place = Place::Key(&top, "header");
            envelope.read_header(object(header, &place, "an object")?, &place)?;
        }
        let Some(body) = given(map, "body") else {
            return values(map, &top, &mut |map, place| read(&mut envelope, map, place))
                .map(|()| envelope);
        };
        let place = Place::Key(&top, "body");
        let body = object(body, &place, "an object: {values}")?;
        values(body, &place, &mut |map, place| {
            read(&mut envelope, map, place)
        })?;
        Ok(envelope)
    }

    fn read_header(&mut self, header: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        self.template = text(header, "templateUri", place)?;
        if let Some(other) = self
            .template
            .filter(|uri| !uri.is_empty() && *uri != TEMPLATE)
        {
            let expected = format!("{TEMPLATE:?}, the one that is built in, or none");
            let complaint = Complaint::expected(expected, &Value::from(other));
            return Err(Place::Key(place, "templateUri").wrong(complaint));
        }
        if given(header, "parameters").is_some() {
            self.ignored.push("header.parameters");
        }
        Ok(())
    }

    fn search_values(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        let Some(rule) = given(map, RULE) else {
            return self.read_short(map, place);
        };
        self.read_match_type(map, place)?;
        let place = Place::Key(place, RULE);
        let rule = object(rule, &place, "an object: {policyRuleURI, parameters}")?;
        values(rule, &place, &mut |rule, place| self.read_rule(rule, place))
    }

    fn read_rule(&mut self, rule: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        self.read_policy(rule, "policyRuleURI", place)?;
        self.note(rule, WITHOUT_EFFECT);
        let Some(parameters) = given(rule, "parameters") else {
            return Ok(());
        };
        let place = Place::Key(place, "parameters");
        let parameters = object(parameters, &place, "an object")?;
        self.read_parameters(parameters, &place)
    }

    fn read_parameters(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        self.parameters = Some(map);
        self.note(map, WITHOUT_EFFECT_AMONG_PARAMETERS);
        self.query_string = match text(map, "query_string", place)? {
            Some(text) => Some(text),
            None => text(map, "user_query", place)?,
        };
        self.read_app_map(map, place)?;
        if let Some(query) = given(map, "selection_query") {
            let place = Place::Key(place, "selection_query");
            let what = "an object: {application_type, optimization_goals}";
            let query = object(query, &place, what)?;
            self.application_type = text(query, "application_type", &place)?;
            self.read_goals(query, "optimization_goals", &place)?;
        }
        if let Some(rule) = given(map, "filterRule") {
            let place = Place::Key(place, "filterRule");
            let rule = object(rule, &place, "an object: {matchType, filter}")?;
            values(rule, &place, &mut |map, place| {
                only(map, place, &["matchType", "filter"])?;
                self.take_filter(map, place)
            })?;
        }
        Ok(())
    }

    fn read_short(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        let asked: Vec<&String> = map.keys().filter(|key| *key != "header").collect();
        if asked.is_empty() {
            let complaint = Complaint::of(
                "nothing is asked: expected {header, body}, rankingPolicyRule, or some of \
                 filter, goals, application_type, policy",
            );
            return Err(place.wrong(complaint));
        }
        let mut allowed = SHORT.to_vec();
        allowed.extend(["header", RULE]);
        only(map, place, &allowed)?;
        if let Some(parameters) = given(map, "parameters") {
            let place = Place::Key(place, "parameters");
            self.read_parameters(object(parameters, &place, "an object")?, &place)?;
        }
        self.take_filter(map, place)?;
        for key in ["policyRuleURI", "policy"] {
            self.read_policy(map, key, place)?;
        }
        for key in ["optimization_goals", "goals"] {
            self.read_goals(map, key, place)?;
        }
        self.read_app_map(map, place)?;
        if let Some(kind) = text(map, "application_type", place)? {
            self.application_type = Some(kind);
        }
        Ok(())
    }

    fn take_filter(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        self.read_match_type(map, place)?;
        if let Some(filter) = given(map, "filter") {
            self.filter = Some((filter, Place::Key(place, "filter").pointer()));
        }
        Ok(())
    }

    fn read_match_type(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        let Some(kind) = text(map, "matchType", place)? else {
            return Ok(());
        };
        if kind != BLOCK {
            let expected = format!("{BLOCK:?}, as only blocks can be selected");
            let complaint = Complaint::expected(expected, &Value::from(kind));
            return Err(Place::Key(place, "matchType").wrong(complaint));
        }
        self.match_type = Some(kind);
        Ok(())
    }

    fn read_policy(
        &mut self,
        map: &'a Object,
        key: &str,
        place: &Place<'_>,
    ) -> Result<(), QueryError> {
        let policy = text(map, key, place)?.filter(|uri| !uri.is_empty());
        if policy.is_some() || self.policy.is_none() {
            self.policy = policy;
            self.policy_at = Place::Key(place, key).pointer();
        }
        Ok(())
    }

    fn read_goals(
        &mut self,
        map: &'a Object,
        key: &str,
        place: &Place<'_>,
    ) -> Result<(), QueryError> {
        let Some(goals) = given(map, key) else {
            return Ok(());
        };
        let place = Place::Key(place, key);
        let list = goals.as_array().ok_or_else(|| {
            let expected = "a list of {name, weight} or {attribute, direction, weight}";
            place.wrong(Complaint::expected(expected, goals))
        })?;
        self.goals = Some((list, place.pointer()));
        Ok(())
    }

    fn read_app_map(&mut self, map: &'a Object, place: &Place<'_>) -> Result<(), QueryError> {
        if let Some(found) = given(map, "APP_MAP") {
            let place = Place::Key(place, "APP_MAP");
            self.app_map = Some(object(found, &place, "an object: {type: use case}")?);
        }
        Ok(())
    }

    fn note(&mut self, map: &Object, keys: [&'static str; 3]) {
        let given = keys.into_iter().filter(|key| given(map, key).is_some());
        self.ignored.extend(given);
    }
}

/// What stands under that key; null is nothing.
fn given<'a>(map: &'a Object, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn text<'a>(map: &'a Object, key: &str, place: &Place<'_>) -> Result<Option<&'a str>, QueryError> {
    let Some(value) = given(map, key) else {
        return Ok(None);
    };
    let complaint = || Place::Key(place, key).wrong(Complaint::expected("a text", value));
    value.as_str().map(Some).ok_or_else(complaint)
}

/// Shows what stands under `values`, or the object itself if it has none.
fn values<'a>(
    map: &'a Object,
    place: &Place<'_>,
    read: &mut dyn FnMut(&'a Object, &Place<'_>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let Some(inner) = given(map, "values") else {
        return read(map, place);
    };
    let place = Place::Key(place, "values");
    read(object(inner, &place, "an object")?, &place)
}
