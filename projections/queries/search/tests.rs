//! What of a search needs no memory: filters on entities, equal scores.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};

use super::{Entity, Search, is_torn, step};

#[test]
fn equal_scores_are_looked_for_until_one_is_not() {
    for (hit, row, precision, torn) in [
        (Some(0.52), Some(0.51), 0.1, true),
        (Some(0.52), Some(0.49), 0.1, false),
        (Some(0.52), Some(0.52), 0.0, false),
        (Some(0.52), None, 0.1, false),
        (None, Some(0.51), 0.1, false),
    ] {
        assert_eq!(is_torn(hit, row, precision), torn, "{hit:?} {row:?} {precision}");
    }
}

fn entity(entity_type: &str, until: Option<u64>) -> Entity {
    Entity {
        id: MemoryId(1),
        scope: Scope::Global,
        name: "Ada".to_owned(),
        entity_type: entity_type.to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity { from: None, to: until.map(Timestamp::from_unix_micros) },
        version: 1,
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        created_seq: Seq(1),
        updated_seq: Seq(1),
        owner: "ada".to_owned(),
    }
}

#[test]
fn an_entity_is_judged_as_the_graph_has_it_however_far_the_rankings_are() {
    let search = Search {
        scopes: vec![Scope::Global],
        entity_types: vec!["person".to_owned()],
        valid_at: Some(Timestamp::from_unix_micros(10)),
        ..Search::default()
    };
    for (found, then) in [
        (entity("person", None), true),
        (entity("person", Some(11)), true),
        (entity("person", Some(10)), false),
        (entity("machine", None), false),
        (Entity { scope: Scope::Agent("bob".parse().unwrap()), ..entity("person", None) }, false),
    ] {
        assert_eq!(search.admits(&found), then, "{found:?}");
    }
}

#[test]
fn scores_within_a_step_are_equal_and_others_keep_their_order() {
    for (a, b, precision, equal) in [
        (0.912, 0.914, 0.01, true),
        (0.91, 0.93, 0.01, false),
        (-0.013, -0.011, 0.01, true),
        (0.912, 0.914, 0.0, false),
    ] {
        let (a, b) = (step(a, precision), step(b, precision));
        assert_eq!(a.total_cmp(&b).is_eq(), equal, "{a} {b} {precision}");
        assert!(a <= b);
    }
}
