//! `pilotfish explain`: who would get a request, and why, by the proxy's own
//! reading of it and the policies' own judgement.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::api::decisions;
use crate::cli::ExplainArgs;
use crate::config::problem::Problems;
use crate::config::validate::{Format, load};
use crate::decisions::{Inputs, Nearer};
use crate::discovery::listed;
use crate::discovery::models::Cards;
use crate::fleet::{Fleet, Model, Snapshot};
use crate::metrics::ModelRegistry;
use crate::policy::{Moment, Question, Refusal, Rules, Tried};
use crate::proxy::offline;
use crate::registry::Registry;
use crate::scrape::stale_after;
use crate::smart::predict::Predictor;
use crate::smart::weigh::ModelChoice;

/// Prints the decision, as `/debug/decisions` does. Engines are as if they
/// had just come: nothing is known of them but what the file says.
///
/// # Errors
/// What is wrong with the file or the request.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let keys = load(&args.config, Format::of(&args.config))?.keys;
    let of = args.config.display().to_string();
    let settings = (Registry::default().resolve(&keys))
        .map_err(|list| Problems { of, list })?
        .settings;
    let specs = listed::specs(&settings.engines, &Cards::default());
    let locality = args.locality.resolve();
    let locality = locality.map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let mut fleet = Fleet::at(locality, ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    let page = explain(args, &fleet.published().load_full())?;
    Ok(writeln!(
        std::io::stdout(),
        "{}",
        serde_json::to_string_pretty(&page)?
    )?)
}

fn explain(args: &ExplainArgs, snapshot: &Snapshot) -> anyhow::Result<Value> {
    let request = offline::Request {
        path: &args.path,
        headers: &headers(args)?,
        body: body(args)?,
        predictor: Arc::new(predictor(args)?),
    };
    let offline::Prepared {
        policy,
        model,
        asked,
        pinned,
        model_choice,
    } = offline::prepare(snapshot, request)?;
    if let Some(pinned) = pinned {
        let engine = pinned.engine.url.text();
        return Ok(serde_json::json!({"chosen": engine, "pinned": true}));
    }
    let tried = Tried::default();
    let mut nearer = Nearer::default();
    let inputs = |model: &Arc<Model>, nearer| {
        let question = Question {
            set: &model.candidates,
            asked: &asked,
            tried: &tried,
            moment: Moment {
                now: Duration::from_secs(60),
                stale_after: stale_after(Duration::from_secs(30)),
                rules: Rules::of(&snapshot.settings),
            },
            bound: None,
        };
        Inputs {
            nearer,
            ..Inputs::take(&policy, model, &question, args.seed)
        }
    };
    // As the proxy does: the nearest first, and all when nobody nearer is open.
    for near in model.nearer(&policy.spec.kind) {
        let inputs = inputs(near, nearer);
        match (inputs.decide().0, near.candidates.tier) {
            (Err(refusal), Some(tier)) => nearer[tier as usize] = Some(refusal),
            (chosen, _) => return Ok(page(&inputs, chosen, model_choice.as_ref())),
        }
    }
    let inputs = inputs(model, nearer);
    Ok(page(&inputs, inputs.decide().0, model_choice.as_ref()))
}

fn page(inputs: &Inputs, chosen: Result<usize, Refusal>, choice: Option<&ModelChoice>) -> Value {
    let mut page = decisions::inputs(inputs, chosen);
    if let Some(choice) = choice {
        page.insert("model_choice".to_owned(), decisions::model_choice(choice));
    }
    Value::Object(page)
}

/// What is learned of models in that folder.
fn predictor(args: &ExplainArgs) -> anyhow::Result<Predictor> {
    match &args.state_dir {
        None => Ok(Predictor::empty()),
        Some(folder) => Ok(crate::smart::store::last_kept(folder)?),
    }
}

fn headers(args: &ExplainArgs) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in &args.header {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("--header {header:?}: expected NAME: VALUE"))?;
        headers.append(
            HeaderName::try_from(name.trim()).with_context(|| format!("--header {header:?}"))?,
            HeaderValue::try_from(value.trim()).with_context(|| format!("--header {header:?}"))?,
        );
    }
    Ok(headers)
}

fn body(args: &ExplainArgs) -> anyhow::Result<bytes::Bytes> {
    if args.request.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut body)?;
        return Ok(body.into());
    }
    let shown = args.request.display();
    let body = std::fs::read(&args.request).with_context(|| format!("cannot read {shown}"))?;
    if body.is_empty() {
        bail!("{shown} is empty; expected the JSON body of a request");
    }
    Ok(body.into())
}
