//! Engines that the user lists by URL.

use crate::config::ListedEngine;
use crate::fleet::{EngineSpec, EngineUrl, UrlError};

/// Makes specs of the listed engines; a URL that is listed more than once is
/// one engine with all the models that were given for it.
///
/// # Errors
/// The first URL that is none.
pub fn specs(listed: &[ListedEngine]) -> Result<Vec<EngineSpec>, UrlError> {
    let mut specs: Vec<EngineSpec> = Vec::with_capacity(listed.len());
    for engine in listed {
        let url = EngineUrl::parse(&engine.url)?;
        let spec = match specs.iter_mut().position(|spec| spec.url == url) {
            Some(at) => &mut specs[at],
            None => {
                specs.push(EngineSpec {
                    url,
                    models: Vec::new(),
                });
                let last = specs.len() - 1;
                &mut specs[last]
            }
        };
        for model in &engine.models {
            if !spec.models.contains(model) {
                spec.models.push(model.clone());
            }
        }
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(url: &str, model: &str) -> ListedEngine {
        ListedEngine {
            url: url.to_owned(),
            models: vec![model.to_owned()],
        }
    }

    #[test]
    fn a_url_listed_twice_is_one_engine_with_two_models() {
        let list = [
            listed("http://a:1", "m"),
            listed("http://b:1", "m"),
            listed("http://a:1", "n"),
            listed("http://a:1", "n"),
        ];
        let specs = specs(&list).unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!(specs[0].models, ["m", "n"]);
    }

    #[test]
    fn a_bad_url_is_named() {
        let error = specs(&[listed("ftp://a", "m")]).unwrap_err().to_string();
        assert!(error.contains("ftp://a"), "{error}");
    }
}
