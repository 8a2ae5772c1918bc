//! The mock's user directory.

use std::collections::HashMap;

/// Rule for which users exist.
#[derive(Clone, Debug)]
pub enum Users {
    /// Every login exists, with an id made from it, unless it begins with `missing_`.
    Any,
    /// Only listed users exist, as id and login.
    Listed(Vec<(String, String)>),
}

impl Users {
    /// Lists only these logins. An id is made from its login, as with [`Users::Any`].
    pub fn only(logins: &[String]) -> Self {
        let user = |login: &String| (made_id(&login.to_ascii_lowercase()), login.to_ascii_lowercase());
        Self::Listed(logins.iter().map(user).collect())
    }
}

fn made_id(login: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in login.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (100_000_000 + hash % 900_000_000_000).to_string()
}

/// Users by id. With [`Users::Any`] an id gets its login when somebody asks for the login.
#[derive(Debug)]
pub(super) struct Directory {
    users: Users,
    logins: HashMap<String, String>,
}

impl Directory {
    pub(super) fn new(users: Users) -> Self {
        let logins = match &users {
            Users::Any => HashMap::new(),
            Users::Listed(users) => users.iter().cloned().collect(),
        };
        Self { users, logins }
    }

    /// The id of a login, if there is such a user.
    pub(super) fn id_of(&mut self, login: &str) -> Option<String> {
        let login = login.to_ascii_lowercase();
        match &self.users {
            Users::Listed(users) => users.iter().find(|(_, l)| *l == login).map(|(id, _)| id.clone()),
            Users::Any if login.starts_with("missing_") || login.is_empty() => None,
            Users::Any => {
                let id = made_id(&login);
                self.logins.insert(id.clone(), login);
                Some(id)
            }
        }
    }

    /// The login of an id, if there is such a user.
    pub(super) fn login_of(&self, id: &str) -> Option<String> {
        let known = self.logins.get(id).cloned();
        match &self.users {
            Users::Listed(_) => known,
            Users::Any if id.bytes().all(|b| b.is_ascii_digit()) && !id.is_empty() => {
                Some(known.unwrap_or_else(|| format!("user_{id}")))
            }
            Users::Any => None,
        }
    }

    pub(super) fn exists(&self, id: &str) -> bool {
        self.login_of(id).is_some()
    }
}
