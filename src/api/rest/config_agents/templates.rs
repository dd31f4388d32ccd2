//! Files to begin with: a list, one, and one filled in.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::Call;
use super::super::problem::{Problem, nearest, shortened};
use super::super::rows;
use super::directory;
use crate::agents::report;
use crate::agents::templates::{TEMPLATES, Template};

fn shown(template: &Template) -> Value {
    json!({
        "id": template.id,
        "name": template.name,
        "description": template.description,
        "category": template.category,
        "capabilities": template.capabilities,
        "required_tools": template.required_tools,
        "example_use_cases": template.example_use_cases,
    })
}

/// `GET /config-agents/templates`.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["category", "capability"]])?;
    let (category, capability) = (query.text("category"), query.text("capability"));
    query.finish()?;
    let fits = |template: &&Template| {
        category.as_deref().is_none_or(|category| template.category == category)
            && capability.as_deref().is_none_or(|capability| template.capabilities.contains(&capability))
    };
    let templates: Vec<Value> = TEMPLATES.iter().filter(fits).map(shown).collect();
    rows::json(StatusCode::OK, &json!({ "total": templates.len(), "templates": templates }))
}

fn named(call: &Call) -> Result<&'static Template, Problem> {
    let id = call.path("id");
    Template::find(id).ok_or_else(|| {
        let remedy = nearest(id, TEMPLATES.iter().map(|template| template.id)).map_or_else(
            || "GET /api/v1/config-agents/templates lists them".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        let detail = format!("there is no template {}", shortened(id));
        Problem::new(StatusCode::NOT_FOUND, "TEMPLATE_NOT_FOUND", detail).remedy(remedy)
    })
}

/// `GET /config-agents/templates/{id}`.
pub(super) async fn get(call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let template = named(&call)?;
    let mut answer = shown(template);
    answer["content"] = json!(template.content);
    answer["parameters"] = json!(template.parameters);
    rows::json(StatusCode::OK, &answer)
}

/// `POST /config-agents/templates/{id}/generate`: the file with its parameters filled in. Nothing is made.
pub(super) async fn generate(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let template = named(&call)?;
    let mut body = call.members(&[&["parameters"]])?;
    let mut values = BTreeMap::new();
    match body.take("parameters") {
        Some(Value::Object(given)) => {
            for (name, value) in given {
                match value {
                    Value::String(text) => _ = values.insert(name, text),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                        let field = format!("parameters.{name}");
                        body.complain(&field, None, "must be a text", "give a text");
                    }
                }
            }
        }
        None => (),
        Some(_) => body.complain("parameters", None, "must be an object", "write {\"NAME\": \"…\"}"),
    }
    body.finish()?;
    let content = template.fill(&values).map_err(|error| {
        let code = match error {
            crate::agents::templates::FillError::Missing(_) => "PARAMETER_MISSING",
            crate::agents::templates::FillError::Unknown { .. }
            | crate::agents::templates::FillError::Value { .. } => "VALIDATION_ERROR",
        };
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string())
            .field("parameters")
            .remedy("GET /api/v1/config-agents/templates/ with the template's name describes each parameter")
    })?;
    let judgement = &directory(&api)?.validate(&content).judgement;
    let errors: Vec<Value> = judgement.problems.iter().map(report::to_json).collect();
    rows::json(
        StatusCode::CREATED,
        &json!({
            "template_id": template.id,
            "generated_content": content,
            "ready_to_deploy": judgement.definition.is_some(),
            "errors": errors,
        }),
    )
}
