//! What holds of documents, and what does not: operators by types, lists, what
//! is missing, nesting.

use super::*;

/// A component's document, and some of everything.
fn document() -> Value {
    json!({
        "componentId": {"name": "qwen", "version": "2.5", "releaseTag": "stable"},
        "tags": ["llm", "multi-modal"],
        "n": 10, "f": 10.5, "neg": -1, "zero": 0, "big": 9_007_199_254_740_993_u64,
        "text": "10", "word": "beta", "empty": "", "odd": "a.c [x] (y)*",
        "yes": true, "no": false, "null": null, "none": [],
        "list": [1, 5, 9], "words": ["alpha", "beta"], "mixed": [1, "a", null, true],
        "objects": [{"v": 1}, {"v": 5}, {"w": "deep"}], "nested": [[1, 2], [3]],
        "gpt-4.1": {"score": 7}, "object": {"k": 1},
        "component": {"inner": "rooted"},
        "region": "metadata's own",
        "componentMetadata": {
            "usecase": "chat-completion, multi-modal",
            "supports_quantization": true,
            "quantization_methods": ["gguf", "awq"],
            "architecture": {"contextLength": 32768, "parameterCountB": 7.6},
            "evaluation": {"benchmarks": {
                "MMLU": {"metric": "accuracy", "value": 82.3},
                "ARC-Challenge": {"value": 88},
            }},
        },
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn conditions_on_documents() {
    let world = World::one(&document());
    let long = "component.componentMetadata.evaluation.benchmarks";
    let cases = [
        // Equal, and not.
        ("n", "==", json!(10), true),
        ("n", "==", json!(10.0), true),
        ("n", "==", json!("10"), false),
        ("text", "==", json!("10"), true),
        ("text", "==", json!(10), false),
        ("word", "==", json!("beta"), true),
        ("word", "==", json!("Beta"), false),
        ("yes", "==", json!(true), true),
        ("yes", "==", json!(1), false),
        ("yes", "==", json!("true"), false),
        ("no", "==", json!(false), true),
        ("no", "==", json!(null), false),
        ("zero", "==", json!(false), false),
        ("zero", "==", json!(-0.0), true),
        ("empty", "==", json!(""), true),
        ("empty", "==", json!(null), false),
        ("null", "==", json!(null), true),
        ("missing", "==", json!(null), true),
        ("missing", "==", json!(""), false),
        ("missing", "==", json!(0), false),
        ("big", "==", json!(9_007_199_254_740_993_u64), true),
        ("big", "==", json!(9_007_199_254_740_992_u64), false),
        ("tags", "==", json!("multi-modal"), true),
        ("tags", "==", json!("multi"), false),
        ("mixed", "==", json!(null), true),
        ("list", "==", json!(null), false),
        ("none", "==", json!(null), false),
        ("object", "==", json!(1), false),
        ("n", "!=", json!(10), false),
        ("n", "!=", json!(11), true),
        ("n", "!=", json!("10"), true),
        ("missing", "!=", json!(10), true),
        ("missing", "!=", json!(null), false),
        ("null", "!=", json!(null), false),
        ("null", "!=", json!(1), true),
        ("n", "!=", json!(null), true),
        ("list", "!=", json!(5), false),
        ("list", "!=", json!(6), true),
        ("none", "!=", json!(6), true),
        ("tags", "!=", json!("llm"), false),
        ("objects.v", "!=", json!(5), false),
        ("objects.v", "!=", json!(6), true),
        ("yes", "!=", json!(true), false),
        // By size.
        ("n", "<", json!(11), true),
        ("n", "<", json!(10), false),
        ("n", "<=", json!(10), true),
        ("n", "<=", json!(9.99), false),
        ("n", ">", json!(9.99), true),
        ("n", ">", json!(10), false),
        ("n", ">=", json!(10), true),
        ("n", ">=", json!(11), false),
        ("neg", "<", json!(0), true),
        ("f", ">", json!(10), true),
        ("f", "<", json!(11), true),
        ("big", ">", json!(9_007_199_254_740_992_u64), true),
        ("big", "<=", json!(9_007_199_254_740_992_u64), false),
        ("n", ">", json!("1"), false),
        ("n", "<", json!("9"), false),
        ("text", ">", json!(1), false),
        ("text", "<", json!("9"), true),
        ("word", ">", json!("alpha"), true),
        ("word", "<", json!("alpha"), false),
        ("word", ">=", json!("beta"), true),
        ("yes", ">", json!(0), false),
        ("null", "<", json!(5), false),
        ("null", ">=", json!(0), false),
        ("missing", "<", json!(5), false),
        ("missing", "<=", json!(5), false),
        ("missing", ">", json!(5), false),
        ("missing", ">=", json!(5), false),
        ("missing", "<", json!("z"), false),
        ("list", ">", json!(8), true),
        ("list", ">", json!(9), false),
        ("list", "<", json!(2), true),
        ("mixed", ">", json!(0), true),
        ("mixed", ">=", json!("a"), true),
        ("none", "<", json!(5), false),
        ("object", ">", json!(0), false),
        // One of a list.
        ("n", "IN", json!([1, 10]), true),
        ("n", "IN", json!([1, "10"]), false),
        ("n", "in", json!([10.0]), true),
        ("n", "IN", json!([]), false),
        ("n", "IN", json!([true, "x", null, 99, 10, -5, false]), true),
        (
            "n",
            "IN",
            json!([true, "x", null, 99, 11, -5, false]),
            false,
        ),
        ("no", "IN", json!([true, "x", null, 99, 10, false]), true),
        ("no", "IN", json!([true, "x", 0]), false),
        (
            "big",
            "IN",
            json!([9_007_199_254_740_992_u64, 9_007_199_254_740_994_u64]),
            false,
        ),
        ("object", "IN", json!([1, null, "k"]), false),
        ("word", "IN", json!(["alpha", "beta"]), true),
        ("tags", "IN", json!(["x", "llm"]), true),
        ("tags", "IN", json!(["x", "y"]), false),
        ("missing", "IN", json!([1, 2]), false),
        ("missing", "IN", json!([1, null]), true),
        ("null", "IN", json!([null]), true),
        ("yes", "IN", json!([true]), true),
        ("objects.v", "IN", json!([5, 6]), true),
        // Like a pattern.
        (
            "componentMetadata.usecase",
            "LIKE",
            json!("*chat-completion*"),
            true,
        ),
        (
            "componentMetadata.usecase",
            "LIKE",
            json!("chat-completion"),
            true,
        ),
        (
            "componentMetadata.usecase",
            "LIKE",
            json!("chat-*modal"),
            true,
        ),
        (
            "componentMetadata.usecase",
            "LIKE",
            json!("*chat-completion"),
            false,
        ),
        ("componentMetadata.usecase", "LIKE", json!("multi*"), false),
        ("componentMetadata.usecase", "like", json!("*Chat*"), false),
        (
            "componentMetadata.usecase",
            "LIKE",
            json!("chat.completion"),
            false,
        ),
        ("odd", "LIKE", json!("a.c*"), true),
        ("odd", "LIKE", json!("*[x]*(y)*"), true),
        ("odd", "LIKE", json!("^a"), false),
        ("tags", "LIKE", json!("multi*"), true),
        ("tags", "LIKE", json!("*x*"), false),
        ("empty", "LIKE", json!("*"), true),
        ("n", "LIKE", json!("*1*"), false),
        ("null", "LIKE", json!("*"), false),
        ("missing", "LIKE", json!("*"), false),
        ("object", "LIKE", json!("*"), false),
        ("objects.w", "LIKE", json!("de*"), true),
        // Ours: within, between, there.
        ("word", "CONTAINS", json!("et"), true),
        ("word", "CONTAINS", json!("ET"), false),
        ("words", "CONTAINS", json!("beta"), true),
        ("words", "CONTAINS", json!("bet"), false),
        ("list", "CONTAINS", json!(5), true),
        ("list", "CONTAINS", json!("5"), false),
        ("mixed", "contains", json!(true), true),
        ("n", "CONTAINS", json!(10), false),
        ("text", "CONTAINS", json!(1), false),
        ("missing", "CONTAINS", json!("x"), false),
        ("n", "BETWEEN", json!([10, 20]), true),
        ("n", "BETWEEN", json!([0, 10]), true),
        ("n", "BETWEEN", json!([11, 20]), false),
        ("n", "BETWEEN", json!([20, 0]), false),
        ("n", "BETWEEN", json!(["0", "2"]), false),
        ("word", "between", json!(["a", "c"]), true),
        ("list", "BETWEEN", json!([2, 4]), false),
        ("list", "BETWEEN", json!([4, 6]), true),
        ("missing", "BETWEEN", json!([0, 10]), false),
        ("n", "EXISTS", json!(true), true),
        ("n", "EXISTS", json!(false), false),
        ("missing", "EXISTS", json!(true), false),
        ("missing", "exists", json!(false), true),
        ("null", "EXISTS", json!(true), true),
        ("none", "EXISTS", json!(true), true),
        ("objects.w", "EXISTS", json!(true), true),
        ("objects.x", "EXISTS", json!(false), true),
        // Paths.
        (&format!("{long}.MMLU.value"), ">=", json!(80), true),
        (&format!("{long}.MMLU.value"), ">", json!(82.3), false),
        (
            &format!("{long}.ARC-Challenge.value"),
            ">=",
            json!(90),
            false,
        ),
        (&format!("{long}.HellaSwag.value"), "<", json!(90), false),
        (
            "componentMetadata.evaluation.benchmarks.MMLU.value",
            ">=",
            json!(80),
            true,
        ),
        ("evaluation.benchmarks.MMLU.value", ">=", json!(80), true),
        (
            "component.evaluation.benchmarks.MMLU.value",
            ">=",
            json!(80),
            true,
        ),
        ("component.tags", "==", json!("multi-modal"), true),
        ("component.inner", "==", json!("rooted"), true),
        ("component.componentId.name", "==", json!("qwen"), true),
        ("component.region", "==", json!("metadata's own"), true),
        ("tags.1", "==", json!("multi-modal"), true),
        ("tags[1]", "==", json!("multi-modal"), true),
        ("tags[2]", "==", json!(null), true),
        ("objects[1].v", "==", json!(5), true),
        ("objects.0.v", "==", json!(5), false),
        ("nested", "==", json!(1), false),
        ("nested.1", "==", json!(3), true),
        ("gpt-4.1.score", ">", json!(6), true),
        ("n.deeper", "EXISTS", json!(false), true),
        ("quantization_methods", "CONTAINS", json!("awq"), true),
    ];
    for (variable, operator, value, expected) in &cases {
        let asked = condition(variable, operator, value);
        let query = parse(&asked).unwrap();
        assert_eq!(world.meets(&query), *expected, "{asked}");
        assert!(!query.has_live(), "{asked}");
        // What is not so, is so not: of what is missing too.
        let query = parse(&join("NOT", std::slice::from_ref(&asked))).unwrap();
        assert_eq!(world.meets(&query), !expected, "NOT {asked}");
    }
    assert!(cases.len() >= 140, "{}", cases.len());
}

#[test]
fn conditions_are_joined() {
    let world = World::one(&document());
    let (yes, no) = (
        condition("n", "==", &json!(10)),
        condition("n", "==", &json!(0)),
    );
    let missing = condition("missing", "<", &json!(1));
    for (operator, conditions, expected) in [
        ("AND", vec![&yes], true),
        ("AND", vec![&yes, &yes, &no], false),
        ("and", vec![&yes, &yes], true),
        ("OR", vec![&no, &yes], true),
        ("Or", vec![&no, &missing], false),
        ("NOT", vec![&no], true),
        ("NOT", vec![&yes], false),
        ("NOT", vec![&no, &yes], false),
        ("not", vec![&no, &no], true),
        ("NOT", vec![&missing], true),
        ("AND", vec![&yes, &missing], false),
    ] {
        let conditions: Vec<Value> = conditions.into_iter().cloned().collect();
        let asked = join(operator, &conditions);
        assert_eq!(world.meets(&parse(&asked).unwrap()), expected, "{asked}");
        let twice = join("NOT", &[join("NOT", std::slice::from_ref(&asked))]);
        assert_eq!(world.meets(&parse(&twice).unwrap()), expected, "{twice}");
    }
    // AND within OR keeps all its conditions.
    let asked = join("OR", &[no.clone(), join("AND", &[no, yes])]);
    assert!(!world.meets(&parse(&asked).unwrap()));
}
