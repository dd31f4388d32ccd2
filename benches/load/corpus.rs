//! Texts of common words, the same at each run.

use serde_json::{Value, json};

const WORDS: &str = "time year people way day man thing woman life child world school state family student group country \
problem hand part place case week company system program question work government number night point home water room \
mother area money story fact month lot right study book eye job word business issue side kind head house service friend \
father power hour game line end member law car city community name president team minute idea body information back \
parent face others level office door health person art war history party result change morning reason research girl guy \
moment air teacher force education foot boy age policy process music market sense nation plan college interest death \
experience effect use class control field development role effort rate heart drug show leader light voice wife police \
mind price report decision son view relationship town road arm difference value building action season society tax \
director position player record paper space ground form event official matter center couple site project activity star \
table need court oil situation cost industry figure street image phone data picture practice piece land product doctor \
wall patient worker news test movie north love support technology step baby computer type attention film tree source \
organization hair window culture chance brother energy period course summer plant opportunity term letter condition \
choice rule daughter south husband floor campaign material population call economy hospital church risk fire future \
bank west sport board officer goal growth sea coffee engine river garden planet compiler kernel battery signal market \
violin harbor glacier turbine orchard lantern copper velvet canyon meadow printer socket packet thread cursor buffer";

/// A small generator with a seed (S. Vigna, `SplitMix64`).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

/// `count` words, common ones more often.
fn words(dice: &mut Dice, all: &[&str], count: usize) -> String {
    let mut text = Vec::with_capacity(count);
    for _ in 0..count {
        text.push(all[dice.roll(all.len()).min(dice.roll(all.len()))]);
    }
    text.join(" ")
}

/// Types with a share of 1, 10, 50 and 39 percent.
fn type_of(index: usize) -> &'static str {
    match index % 100 {
        0 => "share-1",
        1..=10 => "share-10",
        11..=60 => "share-50",
        _ => "rest",
    }
}

fn name_of(index: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    format!("entity {index} {}", words(&mut Dice(index as u64), &all, 2))
}

/// An entity with two observations, as the API takes it.
pub(crate) fn entity(index: usize) -> Value {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let mut dice = Dice(1 << 40 | index as u64);
    json!({
        "entity_name": name_of(index),
        "entity_type": type_of(index),
        "observations": [words(&mut dice, &all, 36), words(&mut dice, &all, 36)],
    })
}

/// `count` relations between `entities` entities, no two alike.
pub(crate) fn relations(entities: usize, count: usize) -> Vec<Value> {
    let relation = |index: usize| {
        let (from, distance) = (index % entities, 1 + index / entities * 7 % (entities - 1));
        json!({
            "from_entity": name_of(from),
            "to_entity": name_of((from + distance) % entities),
            "relation_type": "mentions",
        })
    };
    (0..count).map(relation).collect()
}

/// A short question, ready for a URL.
pub(crate) fn query(index: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    words(&mut Dice(1 << 50 | index as u64), &all, 4).replace(' ', "+")
}
