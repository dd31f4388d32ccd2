//! `POST /v1/embeddings`, as clients of `OpenAI` send it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use caxton_projections::embedding::Embedder as _;
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::{embedding_failed, no_model};
use super::rows;

/// Most texts of one request.
const TEXTS_MAX: usize = 2_048;
/// Longest text, in bytes. The model reads its first 256 tokens.
const TEXT_BYTES_MAX: usize = 1 << 20;

const REQUEST: &[&str] = &["model", "input", "encoding_format", "dimensions", "user"];

/// `POST /v1/embeddings`.
pub(super) async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let query = call.query(&[])?;
    let mut body = call.members(&[REQUEST])?;
    let model = body.required_text("model");
    let texts = texts(&mut body);
    let base64 = body.choice("encoding_format", &[("float", false), ("base64", true)]).unwrap_or(false);
    let dimensions = body.integer("dimensions", 1..=u64::from(u32::MAX));
    body.text("user");
    body.absorb(query);
    body.finish()?;
    api.embed(move |view| {
        let semantic = view.semantic().ok_or_else(no_model)?;
        let identity = semantic.embedding.identity();
        // Clients name a model with its publisher in front, or without.
        if model.rsplit('/').next() != Some(identity.name.rsplit('/').next().unwrap_or_default()) {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "MODEL_NOT_FOUND",
                "this server has another model",
            )
            .field("model")
            .value(&model)
            .remedy(format!("use {:?}", identity.name)));
        }
        if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions != identity.dimensions as u64) {
            let detail = format!("the model's vectors have {} dimensions", identity.dimensions);
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
                .field("dimensions")
                .value(&dimensions.to_string())
                .remedy(format!("leave it out or use {}", identity.dimensions)));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = semantic.embedding.embed(&texts).map_err(|error| embedding_failed(&error))?;
        let tokens: usize = texts.iter().map(|text| semantic.embedding.count_tokens(text)).sum();
        let data: Vec<Value> =
            vectors.iter().enumerate().map(|(index, vector)| item(index, vector, base64)).collect();
        let answer = json!({
            "object": "list",
            "data": data,
            "model": identity.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        });
        rows::json(StatusCode::OK, &answer)
    })
    .await
}

fn item(index: usize, vector: &[f32], base64: bool) -> Value {
    let embedding = if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        json!(BASE64_STANDARD.encode(bytes))
    } else {
        json!(vector)
    };
    json!({"object": "embedding", "index": index, "embedding": embedding})
}

/// The texts in `input`: one, or a list.
fn texts(body: &mut Fields) -> Vec<String> {
    let given = body.has("input");
    let texts = match body.take("input") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        Some(_) => {
            body.complain(
                "input",
                None,
                "must be a text or a list of texts",
                "send texts: token numbers of other models mean nothing here",
            );
            return Vec::new();
        }
        None => {
            let message = if given { "must be a text or a list of texts" } else { "is missing" };
            body.complain("input", None, message, "add it: it is required");
            return Vec::new();
        }
    };
    if texts.is_empty() || texts.len() > TEXTS_MAX {
        let message = format!("has {} texts", texts.len());
        body.complain("input", None, &message, &format!("send 1 to {TEXTS_MAX} texts"));
    }
    for (index, text) in texts.iter().enumerate() {
        let name = format!("input[{index}]");
        if text.trim().is_empty() {
            body.complain(&name, Some(text), "is empty", "send a text with a visible character");
        } else if text.len() > TEXT_BYTES_MAX {
            let message = format!("takes {} bytes, the limit is {TEXT_BYTES_MAX}", text.len());
            body.complain(&name, None, &message, "shorten it: the model reads the first 256 tokens");
        }
    }
    texts
}
