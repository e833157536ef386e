//! Asking whoever listens at a URL.

use serde_json::json;

use super::told::{self, Told};
use super::{Advisers, Asking, Call, NOBODY, Unadvised, parse};
use crate::config::EngineUrl;
use crate::config::policies::{Advised, Scored};

/// Characters of a path, and of a model's name, that are told.
const MOST_NAME: usize = 256;

/// The question: the candidates, the parameters of the request's selection, and
/// what kind of request it is.
fn question(asking: &Asking<'_>, of: &Advised, attributes: &Scored) -> (Vec<Told>, String) {
    let context = context(asking);
    let taken = context.len() + of.parameters.len();
    let told = told::whole(asking, (&of.then, attributes), taken);
    let candidates: Vec<&str> = told.iter().map(|one| one.text.as_str()).collect();
    let text = format!(
        r#"{{"candidates":[{}],"parameters":{},"context":{context}}}"#,
        candidates.join(","),
        of.parameters
    );
    (told, text)
}

fn context(asking: &Asking<'_>) -> String {
    let name = |text: &str| text.chars().take(MOST_NAME).collect::<String>();
    let request = &asking.request;
    let asked = asking.question.asked;
    let context = json!({
        "policy": &*asking.policy.spec.name,
        "model": request.model.map(name),
        "path": name(request.path),
        "stream": request.stream,
        "prompt_tokens": asked.prompt_tokens,
        "max_tokens": asked.max_tokens,
    });
    context.to_string()
}

impl Advisers {
    /// The ids that the matcher at that URL names.
    pub(super) async fn matcher(
        &self,
        url: &EngineUrl,
        (asking, of): (&Asking<'_>, &Advised),
        call: Call,
    ) -> Result<Vec<String>, Unadvised> {
        let (told, text) = question(asking, of, &self.attributes(asking.snapshot));
        if told.is_empty() {
            return Err(NOBODY.into());
        }
        // The URL's own path is what is put before this one.
        let path = if url.base_path().is_empty() { "/" } else { "" };
        let target = self.target(url);
        let body = self.post(&target, (path, text), call).await?;
        let named = parse::matcher(&body)?;
        let known = |id: &String| told.iter().any(|one| one.id == *id);
        let mut ids: Vec<String> = Vec::with_capacity(named.len());
        for id in &named {
            if known(id) && !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        if ids.is_empty() {
            let named = parse::quoted(&named.join(", "));
            return Err(format!("it names nobody of the candidates: {named}").into());
        }
        Ok(ids)
    }
}
