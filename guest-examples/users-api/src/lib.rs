//! A REST interface to users, in JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /users` | 200, all users; `?name=ada` only those of that name |
//! | `POST /users` | 201, the new user, and where it is |
//! | `GET /users/{id}` | 200, one user |
//! | `PUT /users/{id}` | 200, the user as it is now |
//! | `DELETE /users/{id}` | 204 |
//!
//! What is wrong is told as `{"error":"…"}`: 400 for what is no id or no JSON, 404
//! for a user that is not there, 405 for another method, 422 for a user that
//! cannot be.
//!
//! **Changes are answered, not kept.** Each event finds a fresh instance, and so
//! the users that [`seed`] makes. A function that keeps something stores it
//! outside of itself.

use std::collections::BTreeMap;

use dunlin_sdk::{HttpError, IntoResponse, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct User {
    id: u64,
    #[serde(flatten)]
    data: UserData,
}

/// What a client may say of a user.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserData {
    name: String,
    email: String,
}

type Users = BTreeMap<u64, UserData>;

#[dunlin_sdk::http]
fn users(request: Request) -> Result<Response, HttpError> {
    let users = seed();
    let one = request.param("id").is_some();
    match (request.method(), one) {
        ("GET", false) => Ok(list(users, &request)),
        ("POST", false) => create(users, &request),
        ("GET", true) => get(users, &request),
        ("PUT", true) => replace(users, &request),
        ("DELETE", true) => delete(users, &request),
        (_, false) => Ok(method_not_allowed("GET, POST")),
        (_, true) => Ok(method_not_allowed("GET, PUT, DELETE")),
    }
}

fn list(users: Users, request: &Request) -> Response {
    let name = request.query_param("name");
    let users: Vec<User> = users
        .into_iter()
        .map(|(id, data)| User { id, data })
        .filter(|user| name.as_deref().is_none_or(|name| user.data.name == name))
        .collect();
    Response::json(&users)
}

fn create(users: Users, request: &Request) -> Result<Response, HttpError> {
    let data = user_data(request)?;
    let id = users.last_key_value().map_or(1, |(last, _)| last + 1);
    log::info!(id; "created a user");
    Ok(Response::json(&User { id, data })
        .with_status(StatusCode::CREATED)
        .with_header("location", format!("/users/{id}")))
}

fn get(mut users: Users, request: &Request) -> Result<Response, HttpError> {
    let id = request.param_as("id")?;
    let data = users.remove(&id).ok_or_else(|| no_user(id))?;
    Ok(Response::json(&User { id, data }))
}

fn replace(mut users: Users, request: &Request) -> Result<Response, HttpError> {
    let id = request.param_as("id")?;
    users.remove(&id).ok_or_else(|| no_user(id))?;
    let data = user_data(request)?;
    log::info!(id; "replaced a user");
    Ok(Response::json(&User { id, data }))
}

fn delete(mut users: Users, request: &Request) -> Result<Response, HttpError> {
    let id = request.param_as("id")?;
    users.remove(&id).ok_or_else(|| no_user(id))?;
    log::info!(id; "deleted a user");
    Ok(Response::empty())
}

/// The user in the body, checked.
fn user_data(request: &Request) -> Result<UserData, HttpError> {
    let data: UserData = request.json()?;
    if data.name.trim().is_empty() {
        return Err(HttpError::unprocessable("`name` is empty"));
    }
    if !data.email.contains('@') {
        return Err(HttpError::unprocessable("`email` has no @"));
    }
    Ok(data)
}

fn no_user(id: u64) -> HttpError {
    HttpError::not_found(format!("there is no user {id}"))
}

fn method_not_allowed(allowed: &str) -> Response {
    HttpError::new(405, format!("this path takes {allowed}"))
        .into_response()
        .with_header("allow", allowed)
}

fn seed() -> Users {
    let user = |name: &str| UserData {
        name: name.to_owned(),
        email: format!("{name}@example.com"),
    };
    BTreeMap::from([(1, user("ada")), (2, user("grace")), (3, user("linus"))])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(method: &str, id: &str) -> Request {
        Request::new(method, format!("/users/{id}")).with_param("id", id)
    }

    #[track_caller]
    fn check(request: Request, status: u16, body: Value) -> Response {
        let response = users(request).into_response();
        let answered: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        assert_eq!((response.status().as_u16(), answered), (status, body));
        response
    }

    const EVE: &str = r#"{"name":"eve","email":"eve@example.com"}"#;

    #[test]
    fn users_are_listed_and_found() {
        let ada = json!({"id": 1, "name": "ada", "email": "ada@example.com"});
        check(at("GET", "1"), 200, ada.clone());
        check(Request::new("GET", "/users?name=ada"), 200, json!([ada]));
        check(at("GET", "9"), 404, json!({"error": "there is no user 9"}));
        let error = json!({"error": "path parameter `id`: invalid digit found in string"});
        check(at("GET", "ada"), 400, error);
    }

    #[test]
    fn a_new_user_gets_the_next_id() {
        let request = Request::new("POST", "/users").with_body(EVE);
        let eve = json!({"id": 4, "name": "eve", "email": "eve@example.com"});
        let response = check(request, 201, eve);
        assert_eq!(response.header("location"), Some("/users/4"));
    }

    #[test]
    fn users_are_replaced_and_deleted() {
        let eve = json!({"id": 2, "name": "eve", "email": "eve@example.com"});
        check(at("PUT", "2").with_body(EVE), 200, eve);
        check(
            at("PUT", "9").with_body(EVE),
            404,
            json!({"error": "there is no user 9"}),
        );
        check(at("DELETE", "2"), 204, Value::Null);
    }

    #[test]
    fn a_user_that_cannot_be_is_refused_with_the_reason() {
        let post = |body: &str| Request::new("POST", "/users").with_body(body);
        let nobody = r#"{"name":" ","email":"eve@example.com"}"#;
        check(post(nobody), 422, json!({"error": "`name` is empty"}));
        let error = json!({"error": "body: missing field `email` at line 1 column 14"});
        check(post(r#"{"name":"eve"}"#), 422, error);
        let error = json!({"error": "body: expected value at line 1 column 1"});
        check(post("eve"), 400, error);
    }

    #[test]
    fn another_method_is_told_which_are_allowed() {
        let error = json!({"error": "this path takes GET, PUT, DELETE"});
        let response = check(at("PATCH", "1"), 405, error);
        assert_eq!(response.header("allow"), Some("GET, PUT, DELETE"));
    }
}
