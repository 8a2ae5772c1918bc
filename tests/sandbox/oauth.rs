//! Tokens of users: the authorization code grant with its page, the implicit grant, refreshing.

use std::collections::HashMap;

use super::*;

const REDIRECT: &str = "https://app.example/back?from=twitch";

/// The parts of the URL that a browser is sent to.
struct Back {
    url: String,
    query: HashMap<String, String>,
    fragment: HashMap<String, String>,
}

impl Client {
    fn page(&self, query: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        self.url(&format!("/oauth2/authorize?{query}"))
    }

    /// Answers the page as a browser does, which posts to the page's own URL.
    async fn consent(
        &self,
        query: &[(&str, &str)],
        login: &str,
        answer: &str,
    ) -> Result<Back, (u16, String)> {
        let mut form = query.to_vec();
        form.extend([("login", login), ("answer", answer)]);
        let answer = self.http.post(self.page(query)).form(&form).send().await.unwrap();
        let status = answer.status().as_u16();
        let Some(url) = answer.headers().get("Location").map(|url| url.to_str().unwrap().to_owned()) else {
            return Err((status, answer.text().await.unwrap()));
        };
        assert_eq!(status, 302);
        let parsed = reqwest::Url::parse(&url).unwrap();
        let query = parsed.query_pairs().into_owned().collect();
        let fragment = parsed.fragment().unwrap_or_default().as_bytes();
        let fragment = form_urlencoded::parse(fragment).into_owned().collect();
        Ok(Back { url, query, fragment })
    }

    async fn token(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let mut all = vec![("client_id", "sandbox")];
        all.extend(form);
        read(self.http.post(self.url("/oauth2/token")).form(&all)).await
    }

    async fn validate(&self, token: &str) -> (u16, Value) {
        let request = self.http.get(self.url("/oauth2/validate"));
        read(request.header("Authorization", format!("OAuth {token}"))).await
    }
}

fn asked<'a>(response_type: &'a str, state: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("response_type", response_type),
        ("client_id", "sandbox"),
        ("redirect_uri", REDIRECT),
        ("scope", "channel:read:subscriptions bits:read"),
        ("state", state),
    ]
}

#[tokio::test]
async fn a_code_is_exchanged_once_by_its_client_with_its_redirect_uri() {
    let redirect_uris = vec![REDIRECT.to_owned()];
    let client = Client::new(SandboxOptions { redirect_uris, require_grants: true, ..quick() }).await;
    let query = asked("code", "a\"<b>&c");
    let page = client.http.get(client.page(&query)).send().await.unwrap();
    assert_eq!(page.headers()["Content-Type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(page.contains("<li>bits:read</li>") && page.contains("a&quot;&lt;b&gt;&amp;c"), "{page}");

    let back = client.consent(&query, "ann", "allow").await.ok().unwrap();
    assert!(back.url.starts_with("https://app.example/back?from=twitch&code="), "{}", back.url);
    assert_eq!(back.query["state"], "a\"<b>&c");
    assert_eq!(back.query["scope"], "channel:read:subscriptions bits:read");
    let code = back.query["code"].as_str();
    let exchange = |code: &'_ str, secret: &'_ str, redirect: &'_ str| {
        let [code, secret, redirect] = [code, secret, redirect].map(str::to_owned);
        let client = &client;
        async move {
            let form = [
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("client_secret", &secret),
                ("redirect_uri", &redirect),
            ];
            client.token(&form).await
        }
    };
    let secret = "sandbox-secret";
    assert_eq!(exchange(code, "wrong", REDIRECT).await.0, 403);
    let invalid = (400, json!({"status": 400, "message": "Invalid authorization code"}));
    assert_eq!(exchange(code, secret, "https://app.example/").await, invalid);
    assert_eq!(exchange("forged", secret, REDIRECT).await, invalid);
    let (status, tokens) = exchange(code, secret, REDIRECT).await;
    assert_eq!((status, &tokens["token_type"]), (200, &json!("bearer")), "{tokens}");
    assert_eq!(tokens["scope"], json!(["channel:read:subscriptions", "bits:read"]));
    assert_eq!(exchange(code, secret, REDIRECT).await, invalid, "used");

    let (_, valid) = client.validate(tokens["access_token"].as_str().unwrap()).await;
    let id = client.sandbox.user_id("ann").unwrap();
    assert_eq!((&valid["login"], &valid["user_id"]), (&json!("ann"), &json!(id)));
    let (_, granted) = client.get(&format!("/helix/authorization/users?user_id={id}")).await;
    assert_eq!(granted["data"][0]["scopes"], json!(["bits:read", "channel:read:subscriptions"]));

    let refresh = tokens["refresh_token"].as_str().unwrap();
    let refreshing = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_secret", secret)];
    let (status, fresh) = client.token(&refreshing).await;
    assert_eq!((status, &fresh["scope"]), (200, &tokens["scope"]), "{fresh}");
    assert_ne!(fresh["access_token"], tokens["access_token"]);
    assert_eq!(client.validate(fresh["access_token"].as_str().unwrap()).await.0, 200);
    let dead = (400, json!({"status": 400, "message": "Invalid refresh token"}));
    assert_eq!(client.token(&refreshing[..2]).await, dead, "without the secret");
    client.sandbox.revoke_grants("ann").await;
    assert_eq!(client.token(&refreshing).await, dead, "the user has disconnected the application");
    assert_eq!(client.validate(fresh["access_token"].as_str().unwrap()).await.0, 401);
}

#[tokio::test]
async fn a_user_can_refuse_and_nobody_is_sent_to_an_address_that_is_not_registered() {
    let redirect_uris = vec![REDIRECT.to_owned()];
    let client = Client::new(SandboxOptions { redirect_uris, ..quick() }).await;
    let query = asked("code", "s");
    let back = client.consent(&query, "", "refuse").await.ok().unwrap();
    assert_eq!(back.query["error"], "access_denied");
    assert_eq!((back.query["state"].as_str(), back.query.contains_key("code")), ("s", false));
    let (status, page) = client.consent(&query, "missing_ann", "allow").await.err().unwrap();
    assert!(status == 400 && page.contains("There is no such user"), "{page}");
    for (name, value) in [
        ("client_id", "nobody"),
        ("client_id", ""),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "https://app.example/back?from=twitch#fragment"),
        ("response_type", "id_token"),
    ] {
        let mut query = query;
        *query.iter_mut().find(|(key, _)| *key == name).unwrap() = (name, value);
        let (status, body) = client.consent(&query, "ann", "allow").await.err().unwrap();
        assert!(status == 400 && body.contains("\"message\""), "{name}={value}: {body}");
    }
}

#[tokio::test]
async fn the_implicit_grant_has_its_token_in_the_fragment() {
    let client = Client::new(quick()).await;
    let back = client.consent(&asked("token", "s"), "ann", "allow").await.ok().unwrap();
    assert_eq!((back.fragment["state"].as_str(), back.query.contains_key("access_token")), ("s", false));
    let (_, valid) = client.validate(&back.fragment["access_token"]).await;
    assert_eq!(valid["login"], "ann");
}

#[tokio::test]
async fn the_mock_of_twitchs_cli_hands_out_user_tokens() {
    let client = Client::new(quick()).await;
    let id = client.sandbox.user_id("ann").unwrap();
    let ask = async |secret: &str, user: &str| {
        let path = "/auth/authorize?client_id=sandbox&grant_type=user_token&scope=bits:read";
        read(client.http.post(client.url(&format!("{path}&client_secret={secret}&user_id={user}")))).await
    };
    assert_eq!(ask("wrong", &id).await.0, 403);
    assert_eq!(ask("sandbox-secret", "nobody").await.0, 400);
    let (status, tokens) = ask("sandbox-secret", &id).await;
    assert_eq!(status, 200, "{tokens}");
    let (_, valid) = client.validate(tokens["access_token"].as_str().unwrap()).await;
    assert_eq!(valid["scopes"], json!(["bits:read"]));
}
