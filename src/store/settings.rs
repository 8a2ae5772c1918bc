//! Settings: small named texts, such as the id of the conduit.

use rusqlite::{Connection, params};

/// Returns the settings whose names start with `prefix`, sorted by name.
pub(super) fn load(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare_cached("SELECT name, value FROM settings WHERE name >= ?1 ORDER BY name")?;
    let mut rows = statement.query(params![prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if !name.starts_with(prefix) {
            break;
        }
        found.push((name, row.get(1)?));
    }
    Ok(found)
}

/// Sets (`Some`) or removes (`None`) settings.
pub(super) fn save(connection: &Connection, changes: &[(String, Option<String>)]) -> rusqlite::Result<()> {
    for (name, value) in changes {
        match value {
            Some(value) => connection
                .prepare_cached("INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2")?
                .execute(params![name, value])?,
            None => connection.prepare_cached("DELETE FROM settings WHERE name = ?1")?.execute(params![name])?,
        };
    }
    Ok(())
}
