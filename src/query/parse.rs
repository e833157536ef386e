//! Queries as they are written.

mod operator;

use serde_json::{Map, Value};

use super::error::{Complaint, Place, QueryError, object, only, stranger};
use super::eval::{Aggregate, Asked, Leaf, Node};
use super::variable::{MOST_NAMES, Target, Variable};
use super::{Query, Vocabulary};
use crate::config::problem::shown;
use operator::{COMPARISONS, check, range};

/// Logical nodes in each other at most.
const MOST_DEPTH: usize = 64;
/// Conditions of a query at most.
const MOST_CONDITIONS: usize = 256;
/// Bytes of a text at most.
const MOST_BYTES: usize = 4096;

/// The parts of a filter, all of which have to hold.
const PARTS: [&str; 3] = ["clusterQuery", "blockQuery", "blockMetricsQuery"];
/// What the reference asks of other things than blocks ends in this.
const PART: &str = "Query";
const LOGICAL: [&str; 2] = ["logicalOperator", "conditions"];
const SIMPLE: [&str; 3] = ["variable", "operator", "value"];
const AGGREGATE: [&str; 4] = ["aggOperator", "target", "operator", "value"];
const JOINS: [&str; 3] = ["AND", "OR", "NOT"];
const CONDITION: &str = "a condition: {variable, operator, value}, {aggOperator, target, \
                         operator, value} or {logicalOperator, conditions}";

impl Query {
    /// Reads a filter: `{clusterQuery, blockQuery, blockMetricsQuery}`, each of
    /// which may be absent and all of which have to hold, or one condition. `at` is
    /// its place in the request, a JSON pointer.
    ///
    /// # Errors
    /// Says where it is not as the language has it, and what is allowed there.
    pub fn parse(filter: &Value, at: &str, vocabulary: Vocabulary<'_>) -> Result<Self, QueryError> {
        let place = Place::Top(at);
        let map = object(filter, &place, "a filter: an object")?;
        let mut parser = Parser {
            vocabulary,
            conditions: 0,
        };
        let mut query = Self::everything();
        let is_parts = |key: &String| key.ends_with(PART);
        if !map.is_empty() && !map.keys().any(is_parts) {
            query.add(parser.node(filter, &place, 1, Root::Block)?);
            return Ok(query);
        }
        if let Some(other) = map.keys().find(|key| !PARTS.contains(&key.as_str())) {
            return Err(stranger("query", other, &place, &PARTS));
        }
        for (part, root) in PARTS
            .into_iter()
            .zip([Root::Cluster, Root::Block, Root::Block])
        {
            // Whoever has nothing to ask may say so.
            let asked = map.get(part).filter(|asked| !asked.is_null());
            let is_empty = |asked: &&Value| asked.as_object().is_some_and(Map::is_empty);
            if let Some(asked) = asked.filter(|asked| !is_empty(asked)) {
                query.add(parser.node(asked, &Place::Key(&place, part), 1, root)?);
            }
        }
        Ok(query)
    }

    /// Adds a condition that has to hold too.
    pub(super) fn add(&mut self, node: Node) {
        match node {
            Node::All(nodes) => nodes.into_iter().for_each(|node| self.add(node)),
            node if node.any(Leaf::is_live) => self.live.push(node),
            node => self.fixed.push(node),
        }
    }
}

/// In which document names begin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Root {
    Block,
    /// Every name is one of `cluster.`.
    Cluster,
}

struct Parser<'a> {
    vocabulary: Vocabulary<'a>,
    conditions: usize,
}

impl Parser<'_> {
    fn node(
        &mut self,
        value: &Value,
        place: &Place<'_>,
        depth: usize,
        root: Root,
    ) -> Result<Node, QueryError> {
        let map = object(value, place, CONDITION)?;
        let has = |keys: [&str; 2]| keys.iter().any(|key| map.contains_key(*key));
        if has(LOGICAL) {
            return self.logical(map, place, depth, root);
        }
        self.conditions += 1;
        if self.conditions > MOST_CONDITIONS {
            let complaint = Complaint::of(format_args!("more than {MOST_CONDITIONS} conditions"));
            return Err(place.wrong(complaint));
        }
        if has(["aggOperator", "target"]) {
            return self.aggregate(map, place);
        }
        if map.contains_key("variable") {
            return self.simple(map, place, root);
        }
        let complaint = Complaint::expected(CONDITION, value);
        let known = LOGICAL
            .into_iter()
            .chain(SIMPLE)
            .chain(AGGREGATE)
            .chain(PARTS);
        let first = map.keys().next().map_or("", String::as_str);
        Err(place.wrong(complaint.meaning(first, known)))
    }

    fn logical(
        &mut self,
        map: &Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
        root: Root,
    ) -> Result<Node, QueryError> {
        if depth > MOST_DEPTH {
            let complaint = Complaint::of(format_args!("more than {MOST_DEPTH} levels"));
            return Err(place.wrong(complaint));
        }
        only(map, place, &LOGICAL)?;
        let operator = text(map, "logicalOperator", place, "AND, OR or NOT")?;
        let join = JOINS
            .iter()
            .position(|join| join.eq_ignore_ascii_case(operator));
        let Some(join) = join else {
            let complaint = Complaint::unknown("logicalOperator", &Value::from(operator), &JOINS);
            return Err(Place::Key(place, "logicalOperator").wrong(complaint));
        };
        let at = Place::Key(place, "conditions");
        let list = required(map, "conditions", place, "a list of conditions")?;
        let list = list.as_array().filter(|list| !list.is_empty());
        let Some(list) = list else {
            let complaint =
                Complaint::expected("a list of one condition or more", &map["conditions"]);
            return Err(at.wrong(complaint));
        };
        // A list may be longer than all conditions may be.
        let mut nodes = Vec::with_capacity(list.len().min(MOST_CONDITIONS));
        for (index, value) in list.iter().enumerate() {
            let place = Place::Index(&at, index);
            nodes.push(self.node(value, &place, depth + 1, root)?);
        }
        Ok(match join {
            2 => Node::None(nodes),
            // One alone needs no joining.
            _ if nodes.len() == 1 => nodes.remove(0),
            1 => Node::Any(nodes),
            _ => Node::All(nodes),
        })
    }

    fn simple(
        &mut self,
        map: &Map<String, Value>,
        place: &Place<'_>,
        root: Root,
    ) -> Result<Node, QueryError> {
        only(map, place, &SIMPLE)?;
        let name = name(map, "variable", place)?;
        if name == "instances" {
            let complaint = Complaint::of(
                "instances are counted, by {aggOperator: \"count\", target: \"instances\", \
                 operator, value}; a variable is instances.NAME",
            );
            return Err(Place::Key(place, "variable").wrong(complaint));
        }
        let variable = match root {
            Root::Cluster if !name.starts_with("cluster.") => {
                Variable::named(&format!("cluster.{name}"), self.vocabulary)
            }
            _ => Variable::named(name, self.vocabulary),
        };
        let operator = text(map, "operator", place, "an operator")?;
        let check = check(operator, map, place, &variable)?;
        Ok(Node::Leaf(Leaf {
            name: name.into(),
            asked: Asked::Of(variable, check),
        }))
    }

    fn aggregate(
        &mut self,
        map: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<Node, QueryError> {
        only(map, place, &AGGREGATE)?;
        let how = text(map, "aggOperator", place, "avg, sum, min, max or count")?;
        let mut all = Aggregate::ALL.into_iter();
        let known = all.find(|(_, word)| word.eq_ignore_ascii_case(how));
        let Some((aggregate, _)) = known else {
            let words = Aggregate::ALL.map(|(_, word)| word);
            let complaint = Complaint::unknown("aggOperator", &Value::from(how), &words);
            return Err(Place::Key(place, "aggOperator").wrong(complaint));
        };
        let name = name(map, "target", place)?;
        let at = Place::Key(place, "target");
        let target = Target::named(name, self.vocabulary).map_err(|wrong| at.wrong(wrong))?;
        if target == Target::Instances && aggregate != Aggregate::Count {
            let complaint = Complaint::of(
                "instances can only be counted; the target of others is instances.NAME",
            );
            return Err(at.wrong(complaint));
        }
        let operator = text(map, "operator", place, COMPARISONS)?;
        let range = range(operator, map, place)?;
        Ok(Node::Leaf(Leaf {
            name: name.into(),
            asked: Asked::OfAll(aggregate, target, range),
        }))
    }
}

fn required<'a>(
    map: &'a Map<String, Value>,
    key: &str,
    place: &Place<'_>,
    what: &str,
) -> Result<&'a Value, QueryError> {
    let missing = || place.wrong(Complaint::of(format_args!("{key} is missing: {what}")));
    map.get(key).ok_or_else(missing)
}

fn text<'a>(
    map: &'a Map<String, Value>,
    key: &str,
    place: &Place<'_>,
    what: &str,
) -> Result<&'a str, QueryError> {
    let value = required(map, key, place, what)?;
    let at = Place::Key(place, key);
    let text = value.as_str();
    let text = text.ok_or_else(|| at.wrong(Complaint::expected(what, value)))?;
    short(text, &at)?;
    Ok(text)
}

fn short(text: &str, at: &Place<'_>) -> Result<(), QueryError> {
    if text.len() <= MOST_BYTES {
        return Ok(());
    }
    let (got, most) = (text.len(), MOST_BYTES);
    let complaint = Complaint::of(format_args!("a text of {got} bytes; {most} are allowed"));
    Err(at.wrong(complaint))
}

/// The name of a variable or a target.
fn name<'a>(
    map: &'a Map<String, Value>,
    key: &str,
    place: &Place<'_>,
) -> Result<&'a str, QueryError> {
    let name = text(map, key, place, "a name")?;
    let at = Place::Key(place, key);
    let separators = name.bytes().filter(|byte| matches!(byte, b'.' | b'['));
    let names = separators.count() + 1;
    if names > MOST_NAMES {
        let most = MOST_NAMES;
        let complaint = Complaint::of(format_args!("a path of {names} names; {most} are allowed"));
        return Err(at.wrong(complaint));
    }
    if name.split('.').any(str::is_empty) {
        let known = Variable::NAMES.join(", ");
        let complaint = Complaint::of(format_args!(
            "an empty name in {}; expected a path of the metadata, an attribute, \
             instances.NAME or one of: {known}",
            shown(&Value::from(name))
        ));
        return Err(at.wrong(complaint));
    }
    Ok(name)
}
