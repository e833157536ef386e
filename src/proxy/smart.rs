//! The model of a request under a policy of type `smart`, and what is learned from
//! requests that have ended.

use std::rc::Rc;
use std::sync::Arc;

use super::Exchange;
use super::error::ProxyError;
use super::facts::Peeked;
use super::headers::Pinned;
use super::models::{self, Allowed, Several};
use super::user_text;
use super::wishes::Wishes;
use crate::config::dynamic::Cost;
use crate::config::policies::{PolicyKind, Smart};
use crate::fleet::{Model, Snapshot};
use crate::policy::Policy;
use crate::smart::in_force::InForce;
use crate::smart::learner::{self, Lengths};
use crate::smart::predict::{Prediction, Predictor, Scratch};
use crate::smart::running::Running;
use crate::smart::weigh::{self, Length, ModelChoice, Open, Predicted};
use crate::smart::worker::{self, Asker, Event};

/// What is to be told of a request when it has ended.
#[derive(Debug)]
pub(super) struct Lesson {
    asker: Rc<Asker>,
    request_id: String,
    query: Option<String>,
    estimated_tokens: u64,
    most_tokens: Option<u64>,
    predicted: Option<Prediction>,
    policy: Option<Arc<InForce>>,
    price: Option<Cost>,
}

/// How a request's model was chosen, and what is learned from it.
#[derive(Debug)]
pub(super) struct Smartly {
    /// `None`: there was no choice.
    pub(super) choice: Option<Arc<ModelChoice>>,
    /// Taken by whoever sees the end of it.
    pub(super) lesson: Option<Box<Lesson>>,
}

impl Exchange<'_> {
    /// The cheapest model that is likely to be right, of those that the request
    /// allows.
    pub(super) async fn smartly(
        &self,
        (policy, of): (&Arc<Policy>, &Smart),
        wishes: &Wishes<'_>,
        peeked: &Peeked,
    ) -> Result<(&Arc<Model>, Option<Box<Smartly>>), ProxyError> {
        let snapshot = self.snapshot;
        let asker = &self.proxy.asker;
        let query = query(peeked);
        let allowed = models::allowed(snapshot, policy, (wishes, &self.pinned), peeked)?;
        let several = match allowed {
            Allowed::One(model) => {
                let mut lesson = self.lesson(peeked, query);
                lesson.price = weigh::price(of, open(model));
                lesson.policy.clone_from(&policy.smart);
                let told = peeked.facts.is_inference.then(|| lesson.without_choice());
                return Ok((model, told));
            }
            Allowed::Several(several) => several,
        };
        let predicted = asker.predict(query.as_deref()).await;
        let Some(in_force) = &policy.smart else {
            return Err(ProxyError::NoEngine);
        };
        let by = (of, &in_force.running);
        let lengths = asker.lengths();
        let (model, choice) = chosen(snapshot, by, &several, (peeked, &predicted, &lengths))?;
        let one = choice.weighed.get(choice.chosen.at);
        let mut lesson = self.lesson(peeked, query);
        lesson.predicted = one.map(|one| one.prediction);
        lesson.price = one.and_then(|one| one.price);
        lesson.policy = Some(Arc::clone(in_force));
        let choice = Arc::new(choice);
        asker.tell(Event::Chose(worker::Chosen {
            policy: Arc::clone(in_force),
            choice: Arc::clone(&choice),
        }));
        let told = Smartly {
            choice: Some(choice),
            lesson: Some(Box::new(lesson)),
        };
        Ok((model, Some(Box::new(told))))
    }

    /// What is learned from a request whose model another policy chose: something
    /// only while a shadow looks on.
    pub(super) fn watched(&self, policy: &Policy, peeked: &Peeked) -> Option<Box<Smartly>> {
        let is_ours = matches!(policy.spec.kind, PolicyKind::Smart(_));
        let is_watched = self.snapshot.policies.shadow.is_some() && peeked.facts.is_inference;
        (is_watched && !is_ours).then(|| self.lesson(peeked, query(peeked)).without_choice())
    }

    fn lesson(&self, peeked: &Peeked, query: Option<String>) -> Lesson {
        Lesson {
            asker: Rc::clone(&self.proxy.asker),
            request_id: self.id.to_str().unwrap_or_default().to_owned(),
            query,
            estimated_tokens: peeked.facts.estimated_tokens,
            most_tokens: peeked.facts.max_tokens,
            predicted: None,
            policy: None,
            price: None,
        }
    }
}

/// The choice of one of these models, from what is predicted for a request, and how
/// long answers are.
fn chosen<'a>(
    snapshot: &'a Snapshot,
    (of, running): (&Smart, &Running),
    several: &Several<'a, '_>,
    (peeked, predicted, lengths): (&Peeked, &Predicted, &Lengths),
) -> Result<(&'a Arc<Model>, ModelChoice), ProxyError> {
    let length = Length {
        input: peeked.facts.estimated_tokens,
        most: peeked.facts.max_tokens,
    };
    let open = several.open(snapshot)?;
    let weighed = weigh::weigh(open, length, predicted, lengths, (of, running));
    let chosen = weigh::decide(&weighed, of, running).ok_or(ProxyError::NoEngine)?;
    let model = weighed.get(chosen.at);
    let model = model.and_then(|one| snapshot.model(&one.model));
    let choice = ModelChoice {
        chosen,
        requirement: of.requirement,
        lambda: Some(running.lambda()).filter(|lambda| lambda.is_finite()),
        weighed,
    };
    Ok((model.ok_or(ProxyError::NoEngine)?, choice))
}

/// The same for a request that is not sent, with nothing known of traffic.
pub(super) fn offline<'a>(
    snapshot: &'a Snapshot,
    policy: &Policy,
    wishes: &Wishes<'_>,
    (peeked, predictor): (&Peeked, &Arc<Predictor>),
) -> Result<(&'a Arc<Model>, Option<ModelChoice>), ProxyError> {
    let (PolicyKind::Smart(of), Some(in_force)) = (&policy.spec.kind, &policy.smart) else {
        return Err(ProxyError::NoEngine);
    };
    match models::allowed(snapshot, policy, (wishes, &Pinned::No), peeked)? {
        Allowed::One(model) => Ok((model, None)),
        Allowed::Several(several) => {
            let mut scratch = Scratch::new();
            let (predictor, query) = (Arc::clone(predictor), query(peeked));
            let predicted = Predicted::by(predictor, query.as_deref(), &mut scratch);
            let by = (&**of, &in_force.running);
            let from = (peeked, &predicted, &Lengths::default());
            let (model, choice) = chosen(snapshot, by, &several, from)?;
            Ok((model, Some(choice)))
        }
    }
}

fn query(peeked: &Peeked) -> Option<String> {
    let prompt = peeked.facts.prompt.as_deref()?;
    user_text::last(&peeked.held, prompt)
}

fn open(model: &Arc<Model>) -> Open<'_> {
    Open {
        asked: &model.name,
        model,
        is_open: true,
    }
}

impl Lesson {
    fn without_choice(self) -> Box<Smartly> {
        Box::new(Smartly {
            choice: None,
            lesson: Some(Box::new(self)),
        })
    }

    /// Tells of the request, which has got a whole answer of that model, with so many
    /// tokens as far as they are known.
    pub(super) fn ended(self, model: &Arc<str>, input: Option<u32>, output: Option<u32>) {
        let estimated = u32::try_from(self.estimated_tokens).unwrap_or(u32::MAX);
        self.asker.tell(Event::Ended(worker::Ended {
            learned: learner::Ended {
                request_id: self.request_id,
                query: self.query,
                model: Arc::clone(model),
                input_tokens: input.unwrap_or(estimated),
                output_tokens: output,
                predicted: self.predicted,
            },
            policy: self.policy,
            price: self.price,
            most_tokens: self.most_tokens,
        }));
    }
}
