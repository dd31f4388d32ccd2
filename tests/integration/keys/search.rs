//! Keys of searches by meaning.

use caxton::api::rest::{Measure, RestOptions, SearchDefaults};
use serde_json::Value;

use super::super::server::Server;

/// Three things, the nearest to `kettle` last, searched by meaning.
fn found(change: impl FnOnce(&mut SearchDefaults)) -> Vec<Value> {
    let mut options = RestOptions::default();
    change(&mut options.search);
    let server = Server::with_model_and(options);
    for name in ["kettles and lids", "kettles", "kettle"] {
        server.entity(name, "k", &[]);
    }
    let path = "/memory/search?agent_id=ada&query=kettle+(k)&mode=semantic&exact=true";
    let head = server.engine.log().head().seq.0;
    let path = format!("{path}&min_seq={head}");
    server.get(&path).expect(200).json()["results"].as_array().unwrap().clone()
}

fn names(hits: &[Value]) -> Vec<&str> {
    hits.iter().map(|hit| hit["entity_name"].as_str().unwrap()).collect()
}

#[test]
fn hits_that_are_nearly_as_near_are_ordered_by_number() {
    let exact = found(|_| ());
    assert_eq!(names(&exact), ["kettle", "kettles", "kettles and lids"]);
    let coarse = found(|search| search.precision = 0.5);
    assert_eq!(names(&coarse), ["kettles and lids", "kettles", "kettle"], "{coarse:?}");
}

#[test]
fn scores_say_what_was_measured_and_the_order_stays() {
    let cosines = found(|_| ());
    let number = |hit: &Value, name: &str| hit[name].as_f64().unwrap();
    for (measure, word) in [(Measure::Dot, "dot"), (Measure::Euclidean, "euclidean")] {
        let hits = found(|search| search.measure = measure);
        assert_eq!(names(&hits), names(&cosines));
        for (hit, cosine) in hits.iter().zip(&cosines) {
            assert_eq!(hit["why"]["measure"], word);
            assert_eq!(hit["why"]["cosine"], cosine["similarity_score"], "the cosine is told in any case");
            let then = measure.of(number(cosine, "similarity_score"));
            assert!((number(hit, "similarity_score") - then).abs() < 1e-9, "{hit}");
            assert!((number(hit, "score") - then).abs() < 1e-9, "{hit}");
        }
    }
    assert!(cosines[0]["why"].get("measure").is_none());
    assert!(
        (Measure::Euclidean.of(1.0) - 1.0).abs() < 1e-12
            && (Measure::Euclidean.of(-1.0) - 1.0 / 3.0).abs() < 1e-12
    );
}
