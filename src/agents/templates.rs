//! Agent files to begin with: five built in, each with parameters.

use std::collections::BTreeMap;

use serde::Serialize;

use super::reading::nearest;

/// What a parameter's value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 2 to 64 letters, digits, `-` and `_`, beginning with a letter.
    Name,
    /// The name of a capability, in kebab-case.
    Capability,
    /// The name of a host.
    Host,
    /// One line of text.
    Text,
}

/// A value that a template is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name, as it stands in the template.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it must look like.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// A value that would do.
    pub example: &'static str,
    /// Its value when none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<&'static str>,
}

/// A file to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// What it is asked for by.
    pub id: &'static str,
    /// Its title.
    pub name: &'static str,
    /// What its agent does.
    pub description: &'static str,
    /// The group it belongs to.
    pub category: &'static str,
    /// What its agent offers, unless a parameter says otherwise.
    pub capabilities: &'static [&'static str],
    /// Tools its agent uses.
    pub required_tools: &'static [&'static str],
    /// What one would use it for.
    pub example_use_cases: &'static [&'static str],
    /// The file, with `{{PARAMETER}}` where values go.
    pub content: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

const NAME: Parameter = Parameter {
    name: "NAME",
    description: "Name of the agent",
    kind: Kind::Name,
    required: true,
    example: "SalesAnalyst",
    default: None,
};

const fn text(name: &'static str, description: &'static str, default: &'static str) -> Parameter {
    let (kind, required) = (Kind::Text, false);
    Parameter { name, description, kind, required, example: default, default: Some(default) }
}

const fn capability(default: &'static str) -> Parameter {
    Parameter {
        name: "CAPABILITY",
        description: "What others ask the agent for",
        kind: Kind::Capability,
        required: false,
        example: default,
        default: Some(default),
    }
}

/// The templates, in order of their ids.
pub const TEMPLATES: &[Template] = &[
    Template {
        id: "api-integrator",
        name: "API integrator",
        description: "Asks a web service and answers in the words of the one who asked",
        category: "integration",
        capabilities: &["api-integration"],
        required_tools: &["http_client", "memory"],
        example_use_cases: &["Look up orders in a shop's API", "Ask a weather service"],
        content: include_str!("templates/api-integrator.md"),
        parameters: &[
            NAME,
            Parameter {
                name: "HOST",
                description: "The service's host",
                kind: Kind::Host,
                required: true,
                example: "api.example.com",
                default: None,
            },
            text("SERVICE", "What the service is", "a web service"),
            capability("api-integration"),
        ],
    },
    Template {
        id: "content-generator",
        name: "Content generator",
        description: "Writes texts in one style, from what memory knows",
        category: "content",
        capabilities: &["content-generation"],
        required_tools: &["memory"],
        example_use_cases: &["Release notes from what was done", "Product texts"],
        content: include_str!("templates/content-generator.md"),
        parameters: &[
            NAME,
            text("STYLE", "How it writes", "plain and short"),
            text("AUDIENCE", "For whom", "people who are new to the subject"),
            capability("content-generation"),
        ],
    },
    Template {
        id: "data-analyzer",
        name: "Data analyzer",
        description: "Answers questions about data that it remembers, and says where each figure is from",
        category: "analysis",
        capabilities: &["data-analysis"],
        required_tools: &["memory"],
        example_use_cases: &["Summaries of measurements", "Comparisons of months"],
        content: include_str!("templates/data-analyzer.md"),
        parameters: &[
            NAME,
            text("SUBJECT", "What the data is about", "the data in memory"),
            capability("data-analysis"),
        ],
    },
    Template {
        id: "system-monitor",
        name: "System monitor",
        description: "Keeps what is reported to it and tells when something is out of the ordinary",
        category: "operations",
        capabilities: &["system-monitoring"],
        required_tools: &["memory", "message"],
        example_use_cases: &["Collect reports of services", "Tell an operator about errors"],
        content: include_str!("templates/system-monitor.md"),
        parameters: &[
            NAME,
            text("SYSTEM", "What it watches", "the services that report here"),
            Parameter {
                name: "ALERTS_TO",
                description: "The agent that is told",
                kind: Kind::Name,
                required: true,
                example: "operator",
                default: None,
            },
            capability("system-monitoring"),
        ],
    },
    Template {
        id: "workflow-coordinator",
        name: "Workflow coordinator",
        description: "Splits a task, asks others by capability, and puts their answers together",
        category: "coordination",
        capabilities: &["workflow-coordination"],
        required_tools: &["memory", "message"],
        example_use_cases: &["Reports with several authors", "A check by two agents"],
        content: include_str!("templates/workflow-coordinator.md"),
        parameters: &[
            NAME,
            text("GOAL", "What it is for", "finish what it is asked for"),
            capability("workflow-coordination"),
        ],
    },
];

/// Why a template was not filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A parameter must be given.
    #[error("the parameter {0} is missing")]
    Missing(&'static str),
    /// There is no such parameter.
    #[error("there is no parameter {given}; {remedy}")]
    Unknown {
        /// What was given.
        given: String,
        /// The nearest, or all.
        remedy: String,
    },
    /// The value does not look as it must.
    #[error("{value:?} is not {takes}, which {parameter} takes")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// What was given.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
}

impl Template {
    /// The template with this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.id == id)
    }

    /// The file with its parameters filled in. Values are checked by kind and quoted, so that none can add keys.
    ///
    /// ```
    /// use caxton::agents::{Surroundings, judge, templates::Template};
    ///
    /// let values = [("NAME".to_owned(), "Ada".to_owned())].into();
    /// let file = Template::find("data-analyzer").unwrap().fill(&values)?;
    /// assert!(judge(file.as_bytes(), &Surroundings::default()).definition.is_some());
    /// # Ok::<(), caxton::agents::templates::FillError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FillError`], the first one.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Result<String, FillError> {
        for given in values.keys() {
            let names = || self.parameters.iter().map(|parameter| parameter.name);
            if !names().any(|name| name == given) {
                let remedy = nearest(given, names()).map_or_else(
                    || format!("the parameters are {}", names().collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                return Err(FillError::Unknown { given: given.clone(), remedy });
            }
        }
        let mut file = self.content.to_owned();
        for parameter in self.parameters {
            let given = values.get(parameter.name).map(String::as_str);
            let value = given.or(parameter.default).ok_or(FillError::Missing(parameter.name))?;
            check(parameter, value)?;
            file = file.replace(&format!("{{{{{}}}}}", parameter.name), &shown(parameter.kind, value));
        }
        Ok(file)
    }
}

fn check(parameter: &Parameter, value: &str) -> Result<(), FillError> {
    let simple = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_');
    let (fits, takes) = match parameter.kind {
        Kind::Name => (
            (2..=64).contains(&value.len())
                && value.starts_with(|sign: char| sign.is_ascii_alphabetic())
                && value.chars().all(simple),
            "a name of 2 to 64 letters, digits, `-` or `_`",
        ),
        Kind::Capability => {
            (value.parse::<caxton_events::CapabilityName>().is_ok(), "a capability in kebab-case")
        }
        Kind::Host => {
            (!value.is_empty() && value.chars().all(|sign| simple(sign) || sign == '.'), "the name of a host")
        }
        Kind::Text => (
            !value.is_empty()
                && value.len() <= 500
                && !value.chars().any(|sign| sign.is_control() || "{}".contains(sign)),
            "one line of 1 to 500 bytes without braces",
        ),
    };
    if fits {
        return Ok(());
    }
    Err(FillError::Value { parameter: parameter.name, value: value.chars().take(100).collect(), takes })
}

/// The value as it goes into the file. In front matter, texts stand inside double quotes.
fn shown(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Text => value.replace(['\\', '"'], "'"),
        Kind::Name | Kind::Capability | Kind::Host => value.to_owned(),
    }
}
