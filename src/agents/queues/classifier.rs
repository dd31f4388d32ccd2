//! Which queue a message goes to.

use std::collections::HashMap;

use caxton_events::CapabilityName;
use caxton_events::conversation::Priority;

use super::QueueRule;
use crate::config::RequestHandling;

/// Names of the queues that classification knows, and the priority of a message that goes there by itself.
const NAMES: [(&str, Priority); 4] = [
    ("critical", Priority::Critical),
    ("high", Priority::High),
    ("normal", Priority::Normal),
    ("background", Priority::Low),
];

/// Capabilities and priorities by the number of their queue.
#[derive(Debug, Clone)]
pub struct Classifier {
    by_capability: HashMap<String, usize>,
    by_priority: [usize; NAMES.len()],
}

impl Classifier {
    /// The queues of a configuration, and who goes to which. Without priority queues there is one, as large as all of
    /// them, with the measure of `normal`.
    pub fn new(settings: &RequestHandling) -> (Vec<QueueRule>, Self) {
        let mut rules: Vec<QueueRule> = settings
            .priority_queues
            .queues
            .0
            .iter()
            .map(|queue| QueueRule {
                name: queue.name.clone(),
                priority: queue.priority,
                max_latency: queue.max_latency,
                size: queue.queue_size,
            })
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        if !settings.priority_queues.enabled || rules.is_empty() {
            let normal = rules.iter().find(|rule| rule.name == "normal").or(rules.first());
            let max_latency = normal.map_or(std::time::Duration::from_secs(15), |rule| rule.max_latency);
            let size = rules.iter().map(|rule| rule.size).sum::<usize>().max(1);
            rules = vec![QueueRule { name: "all".to_owned(), priority: 0, max_latency, size }];
        }
        let number = |name: &str| rules.iter().position(|rule| rule.name == name);
        // A queue that is not there is stood for by `normal`, and that by the least urgent.
        let normal = number("normal").unwrap_or(rules.len() - 1);
        let lists = &settings.classification;
        let listed = [
            &lists.critical_capabilities,
            &lists.high_capabilities,
            &lists.normal_capabilities,
            &lists.background_capabilities,
        ];
        let by_priority = NAMES.map(|(name, _)| number(name).unwrap_or(normal));
        let mut by_capability = HashMap::new();
        for (names, queue) in listed.into_iter().zip(by_priority) {
            for name in names {
                by_capability.entry(name.clone()).or_insert(queue);
            }
        }
        (rules, Self { by_capability, by_priority })
    }

    /// The queue of a message: its capability's where that is listed, else its priority's.
    pub fn queue(&self, capability: Option<&CapabilityName>, priority: Priority) -> usize {
        let listed = capability.and_then(|capability| self.by_capability.get(capability.as_str()));
        listed.copied().unwrap_or_else(|| {
            let at = NAMES.iter().position(|(_, one)| *one == priority).unwrap_or_default();
            self.by_priority[at]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(name: &str) -> CapabilityName {
        name.parse().unwrap()
    }

    #[test]
    fn a_listed_capability_decides_and_else_the_priority() {
        let mut settings = RequestHandling::default();
        settings.classification.critical_capabilities = vec!["emergency-response".to_owned()];
        settings.classification.high_capabilities = vec!["real-time-analysis".to_owned()];
        settings.classification.normal_capabilities = vec!["data-processing".to_owned()];
        settings.classification.background_capabilities = vec!["batch-processing".to_owned()];
        let (rules, classifier) = Classifier::new(&settings);
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["critical", "high", "normal", "background"]);
        for (name, priority, queue) in [
            (Some("emergency-response"), Priority::Low, 0),
            (Some("real-time-analysis"), Priority::Low, 1),
            (Some("data-processing"), Priority::Critical, 2),
            (Some("batch-processing"), Priority::Critical, 3),
            (Some("other"), Priority::Normal, 2),
            (Some("other"), Priority::High, 1),
            (None, Priority::Critical, 0),
            (None, Priority::Low, 3),
        ] {
            let name = name.map(capability);
            assert_eq!(classifier.queue(name.as_ref(), priority), queue, "{name:?} {priority}");
        }
    }

    #[test]
    fn without_priority_queues_there_is_one() {
        let mut settings = RequestHandling::default();
        settings.priority_queues.enabled = false;
        let (rules, classifier) = Classifier::new(&settings);
        assert_eq!((rules.len(), rules[0].size), (1, 3_600));
        assert_eq!(classifier.queue(None, Priority::Critical), 0);
        settings.priority_queues.enabled = true;
        settings.priority_queues.queues.0.retain(|queue| queue.name != "critical" && queue.name != "high");
        let (_, classifier) = Classifier::new(&settings);
        assert_eq!(classifier.queue(None, Priority::Critical), 0, "`normal` stands for what is not there");
        assert_eq!(classifier.queue(None, Priority::Low), 1);
    }
}
