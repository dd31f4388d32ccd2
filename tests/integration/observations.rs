//! Observations: added, listed, changed, removed.

use serde_json::json;

use super::server::Server;

#[test]
fn observations_are_added_once_and_listed_in_order() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let path = "/memory/entities/Ada/observations?agent_id=ada";
    let body = json!({"observations": ["plays chess", "likes tea", {"content": "writes notes"}]});
    let added = server.post(path, &body).expect(201).json();
    assert!(added["seq"].is_u64());
    let ids = added["observation_ids"].as_array().unwrap();
    assert_eq!(ids.len(), 3, "one for each text, also for the one that was there");
    let again = server.post(path, &body).expect(200).json();
    assert_eq!(
        (&again["status"], &again["observation_ids"]),
        (&json!("unchanged"), &added["observation_ids"])
    );

    assert_eq!(again.get("not_taken"), None);
    let dated = json!({"observations": ["plays chess", {"content": "likes tea", "valid_to": "2000-01-01"}]});
    let kept = server.post(path, &dated).expect(200).json();
    assert_eq!(kept["status"], "unchanged");
    assert_eq!(kept["not_taken"], json!(["observations[1].valid_to"]));

    let first = server.get(&format!("{path}&limit=2")).expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("{path}&limit=2&cursor={cursor}")).expect(200).json();
    let contents: Vec<_> = [&first, &rest]
        .iter()
        .flat_map(|page| page["observations"].as_array().unwrap())
        .map(|row| row["content"].as_str().unwrap())
        .collect();
    assert_eq!(contents, ["likes tea", "plays chess", "writes notes"]);
    assert_eq!(rest["next_cursor"], json!(null));
    server.post("/memory/entities/Nobody/observations?agent_id=ada", &body).problem(404, "ENTITY_NOT_FOUND");
}

#[test]
fn an_observation_is_read_changed_and_removed_by_its_id() {
    let server = Server::start();
    let created = server.entity("Ada", "Person", &["likes tea"]);
    let id = created["observation_ids"][0].as_str().unwrap();
    let path = format!("/memory/observations/{id}?agent_id=ada");
    let before = server.get(&path).expect(200).json();
    assert_eq!((&before["content"], &before["updated_seq"]), (&json!("likes tea"), &before["seq"]));
    assert_eq!(before["updated_at"], before["created_at"]);
    let changed =
        server.ask("PATCH", &path).json(&json!({"content": "likes coffee"})).send().expect(200).json();
    assert_eq!((&changed["status"], &changed["entity_id"]), (&json!("updated"), &created["entity_id"]));
    let after = server.get(&path).expect(200).json();
    assert_eq!((&after["content"], &after["updated_seq"]), (&json!("likes coffee"), &changed["seq"]));
    assert_eq!((&after["seq"], &after["created_at"]), (&before["seq"], &before["created_at"]));
    assert!(after["updated_at"].as_str() >= before["updated_at"].as_str(), "{after}");

    let other = format!("/memory/observations/{id}?agent_id=bob");
    server.get(&other).problem(404, "OBSERVATION_NOT_FOUND");
    server.delete(&other).problem(404, "OBSERVATION_NOT_FOUND");
    let theft = server.ask("PATCH", &other).json(&json!({"content": "mine"})).send();
    theft.problem(404, "OBSERVATION_NOT_FOUND");

    assert_eq!(server.delete(&path).expect(200).json()["status"], "removed");
    server.get(&path).problem(404, "OBSERVATION_NOT_FOUND");
    server.delete(&path).problem(404, "OBSERVATION_NOT_FOUND");
    server.get("/memory/observations/7?agent_id=ada").problem(400, "INVALID_ID");
    server.get("/memory/observations/ent_1?agent_id=ada").problem(400, "INVALID_ID");
}
