//! Which queries come most often, in bounded memory.

use std::collections::HashMap;

/// Queries that are counted at a time.
const COUNTED_MAX: usize = 1_024;
/// Bytes of a query that is counted; a longer one hardly comes twice.
const QUERY_BYTES_MAX: usize = 1_024;

/// Counts of queries, those of the rare ones too high.
///
/// The method is Space-Saving (A. Metwally, D. Agrawal, A. El Abbadi, *Efficient Computation of Frequent and Top-k Elements in
/// Data Streams*, ICDT 2005): a new query takes the place of the rarest one and one more than its count, so that what comes
/// more often than one time in [`COUNTED_MAX`] is always among them.
#[derive(Debug, Default)]
pub struct Frequent {
    counts: HashMap<String, u64>,
}

impl Frequent {
    /// The query came once.
    pub fn count(&mut self, query: &str) {
        self.add(query, 1);
    }

    /// The query came so often before.
    pub fn add(&mut self, query: &str, times: u64) {
        if query.len() > QUERY_BYTES_MAX || times == 0 {
            return;
        }
        if let Some(count) = self.counts.get_mut(query) {
            *count = count.saturating_add(times);
            return;
        }
        let mut count = times;
        if self.counts.len() >= COUNTED_MAX {
            let rarest = self.counts.iter().min_by_key(|(_, count)| **count);
            let Some((rarest, least)) = rarest.map(|(query, count)| (query.clone(), *count)) else { return };
            self.counts.remove(&rarest);
            count = count.saturating_add(least);
        }
        self.counts.insert(query.to_owned(), count);
    }

    /// The `most` that came most often, these first, with their counts.
    pub fn top(&self, most: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(&String, u64)> = self.counts.iter().map(|(query, count)| (query, *count)).collect();
        all.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
        all.into_iter().take(most).map(|(query, count)| (query.clone(), count)).collect()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_found_among_much_that_comes_once() {
        let mut frequent = Frequent::default();
        for number in 0..20 * COUNTED_MAX {
            frequent.count(&format!("once {number}"));
            if number % 100 == 0 {
                frequent.count("often");
            }
            if number % 200 == 0 {
                frequent.count("less often");
            }
        }
        let names: Vec<String> = frequent.top(2).into_iter().map(|(query, _)| query).collect();
        assert_eq!(names, ["often", "less often"]);
        assert_eq!(frequent.counts.len(), COUNTED_MAX);
        frequent.count(&"x".repeat(QUERY_BYTES_MAX + 1));
        assert!(frequent.top(COUNTED_MAX).iter().all(|(query, _)| query.len() <= QUERY_BYTES_MAX));
        frequent.clear();
        assert!(frequent.top(1).is_empty());
    }
}
