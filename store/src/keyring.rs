//! Keys: one per tenant for pseudonyms, one per day for dead letters. Erasing is shredding a key.
//!
//! Dead-letter bytes are sealed with XChaCha20-Poly1305 (RFC 8439 with the extended nonce of
//! draft-irtf-cfrg-xchacha): a random 192-bit nonce, then ciphertext and tag; the day is authenticated beside them. A
//! random nonce of that length needs no counter: after 2^80 messages under one key a repeat is still unlikely.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use weir_schemas::TenantKey;

use crate::folder::sync_folder_of;
use crate::{PutNew, Result, Store, StoreError, UtcDay};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Where a store says which keys folder goes with it.
const FOLDER_NOTE: &str = "keys/folder";

/// A folder of keys, readable by its owner only. Cheap to clone; clones share what they have read.
#[derive(Clone)]
pub struct Keyring {
    folder: PathBuf,
    tenants: Arc<Mutex<HashMap<String, TenantKey>>>,
}

impl Keyring {
    /// Opens a keys folder and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Key`] when it cannot be made or written to.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_owned();
        for part in ["tenants", "deadletters"] {
            let path = folder.join(part);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| key_error(&path, &error))?;
        }
        Ok(Self { folder, tenants: Arc::default() })
    }

    /// Notes in `store` that its pseudonyms and dead letters are made with this folder's keys, or finds that they are made
    /// with those of another: processes with a folder each would give one caller several pseudonyms.
    ///
    /// # Errors
    /// [`StoreError::OtherKeys`], [`StoreError::Key`] and [`StoreError::Storage`].
    pub async fn belongs_to(&self, store: &Store) -> Result<()> {
        let own = read_or_create(&self.folder.join("folder.id"))?;
        // What is noted names the folder and helps nobody to a key: it is a random number of its own.
        let own = hex::encode(&Sha256::digest(own)[..16]);
        if store.put_new(FOLDER_NOTE, own.clone().into()).await? == PutNew::Created {
            return Ok(());
        }
        match store.get(FOLDER_NOTE).await? {
            Some(noted) if noted != own.as_bytes() => {
                let note = store.url().join(FOLDER_NOTE).map_or_else(|_| FOLDER_NOTE.to_owned(), |url| url.to_string());
                Err(StoreError::OtherKeys { folder: self.folder.display().to_string(), note })
            }
            _ => Ok(()),
        }
    }

    /// A keys folder that is only looked into: nothing is made in it, and it need not be there.
    #[must_use]
    pub fn reading(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned(), tenants: Arc::default() }
    }

    /// The tenant's key, if one was made: for those who must not make a file because a stranger named a tenant.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn known_tenant_key(&self, tenant: &str) -> Result<Option<TenantKey>> {
        let mut known = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(tenant) {
            return Ok(Some(key.clone()));
        }
        let key = read(&self.tenant_path(tenant))?.map(TenantKey::new);
        if let Some(key) = &key {
            known.insert(tenant.to_owned(), key.clone());
        }
        Ok(key)
    }

    /// The tenant's key, made at first use.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn tenant_key(&self, tenant: &str) -> Result<TenantKey> {
        let mut known = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(tenant) {
            return Ok(key.clone());
        }
        let key = TenantKey::new(read_or_create(&self.tenant_path(tenant))?);
        known.insert(tenant.to_owned(), key.clone());
        Ok(key)
    }

    /// Seals bytes under the key of `day`, made at first use: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn seal(&self, day: UtcDay, bytes: &[u8]) -> Result<Vec<u8>> {
        self.seal_as("", day, bytes)
    }

    /// The same for bytes of another form, which only [`Keyring::unseal_as`] with the form's name opens.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn seal_as(&self, form: &str, day: UtcDay, bytes: &[u8]) -> Result<Vec<u8>> {
        let path = self.day_path(day);
        let cipher = XChaCha20Poly1305::new(&read_or_create(&path)?.into());
        let nonce = random::<NONCE_BYTES>().map_err(|error| key_error(&path, &error))?;
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: bytes, aad: format!("{day}{form}").as_bytes() })
            .map_err(|_| key_error(&path, &"the message is too long to seal"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Keyring::seal`] made; `None` when the day's key has expired.
    ///
    /// # Errors
    /// [`StoreError::NotSealedHere`] when the bytes were changed or sealed with another key.
    pub fn unseal(&self, day: UtcDay, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        self.unseal_as("", day, sealed)
    }

    /// The same for what [`Keyring::seal_as`] made.
    ///
    /// # Errors
    /// [`StoreError::NotSealedHere`], also when the bytes are of another form.
    pub fn unseal_as(&self, form: &str, day: UtcDay, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(key) = read(&self.day_path(day))? else { return Ok(None) };
        let foreign = || StoreError::NotSealedHere { day: day.to_string() };
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(foreign)?;
        let named = format!("{day}{form}");
        let payload = Payload { msg: ciphertext, aad: named.as_bytes() };
        XChaCha20Poly1305::new(&key.into()).decrypt(XNonce::from_slice(nonce), payload).map(Some).map_err(|_| foreign())
    }

    /// Is the key of `day` there? Without it nothing that was sealed on that day can be opened.
    ///
    /// # Errors
    /// [`StoreError::Key`] when the folder cannot be looked into.
    pub fn can_unseal(&self, day: UtcDay) -> Result<bool> {
        let path = self.day_path(day);
        path.try_exists().map_err(|error| key_error(&path, &error))
    }

    /// Shreds the dead-letter keys of all days before `before`; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn expire(&self, before: UtcDay) -> Result<usize> {
        let folder = self.folder.join("deadletters");
        let mut shredded = 0;
        for entry in fs::read_dir(&folder).map_err(|error| key_error(&folder, &error))? {
            let path = entry.map_err(|error| key_error(&folder, &error))?.path();
            let day = path.file_stem().and_then(|stem| stem.to_str()).and_then(UtcDay::parse);
            if day.is_some_and(|day| day < before) {
                match shred(&path) {
                    Ok(()) => shredded += 1,
                    // Another process expires keys too, and was first.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(key_error(&path, &error)),
                }
            }
        }
        Ok(shredded)
    }

    /// A tenant's name is outside input: its hash is a safe file name.
    fn tenant_path(&self, tenant: &str) -> PathBuf {
        let file = format!("{}.key", hex::encode(&Sha256::digest(tenant.as_bytes())[..16]));
        self.folder.join("tenants").join(file)
    }

    fn day_path(&self, day: UtcDay) -> PathBuf {
        self.folder.join("deadletters").join(format!("{day}.key"))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn read_or_create(path: &Path) -> Result<[u8; KEY_BYTES]> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    create(path).map_err(|error| key_error(path, &error))?;
    read(path)?.ok_or_else(|| key_error(path, &"it vanished while it was made"))
}

fn read(path: &Path) -> Result<Option<[u8; KEY_BYTES]>> {
    match fs::read(path) {
        Ok(bytes) => {
            let key = bytes.try_into().map_err(|_| key_error(path, &"it does not hold a 256-bit key"))?;
            Ok(Some(key))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(key_error(path, &error)),
    }
}

/// Creates the key whole or not at all: written and synced beside its place, then linked into it, which fails when
/// another process was first. Its key then counts.
fn create(path: &Path) -> std::io::Result<()> {
    let draft = path.with_extension(format!("draft-{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let linked = random::<KEY_BYTES>()
        .and_then(|key| file.write_all(&key))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // What is sealed with it would be lost with it.
        _ => sync_folder_of(path),
    }
}

/// Overwrites before it removes: on a plain file system the old bytes are then gone from the disk too.
fn shred(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(&[0; KEY_BYTES])?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_folder_of(path)
}

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

fn key_error(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Key { path: path.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_store_belongs_to_the_keys_folder_that_came_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("memory://").await.unwrap();
        for _ in 0..2 {
            Keyring::open(folder.path().join("ours")).unwrap().belongs_to(&store).await.unwrap();
        }
        let other = Keyring::open(folder.path().join("others")).unwrap();
        let refused = other.belongs_to(&store).await.unwrap_err();
        assert!(matches!(&refused, StoreError::OtherKeys { folder, .. } if folder.ends_with("others")), "{refused}");
        store.delete(FOLDER_NOTE).await.unwrap();
        other.belongs_to(&store).await.unwrap();
    }

    fn day(text: &str) -> UtcDay {
        UtcDay::parse(text).unwrap()
    }

    #[test]
    fn a_tenants_key_is_made_once_and_differs_between_tenants() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Keyring::open(folder.path()).unwrap(), Keyring::open(folder.path()).unwrap());
        let pseudonym = |keyring: &Keyring, tenant| keyring.tenant_key(tenant).unwrap().pseudonym("caller", "ann");
        assert_eq!(pseudonym(&one, "acme"), pseudonym(&other, "acme"));
        assert_ne!(pseudonym(&one, "acme"), pseudonym(&one, "../../acme"));
        assert_eq!(fs::read_dir(folder.path().join("tenants")).unwrap().count(), 2, "a draft was left behind");
    }

    #[test]
    fn a_reader_finds_keys_and_makes_none() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let reader = Keyring::reading(&keys);
        assert!(reader.known_tenant_key("acme").unwrap().is_none());
        assert!(!keys.exists(), "looking made the folder");
        let made = Keyring::open(&keys).unwrap().tenant_key("acme").unwrap();
        let found = reader.known_tenant_key("acme").unwrap().unwrap();
        assert_eq!(found.pseudonym("caller", "ann"), made.pseudonym("caller", "ann"));
        assert!(reader.known_tenant_key("another").unwrap().is_none());
    }

    #[test]
    fn racing_processes_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let pseudonyms: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    let keyring = Keyring::open(folder.path()).unwrap();
                    scope.spawn(move || keyring.tenant_key("acme").unwrap().pseudonym("caller", "ann"))
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(pseudonyms.windows(2).all(|pair| pair[0] == pair[1]), "{pseudonyms:?}");
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let keyring = Keyring::open(&keys).unwrap();
        keyring.seal(day("2024-05-01"), b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys.join("deadletters")), 0o700);
        assert_eq!(mode(&keys.join("deadletters/2024-05-01.key")), 0o600);
    }

    #[test]
    fn sealed_bytes_open_until_their_day_expires() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(folder.path()).unwrap();
        let (old, new) = (day("2024-04-30"), day("2024-05-01"));
        let (sealed_old, sealed_new) = (keyring.seal(old, b"hello").unwrap(), keyring.seal(new, b"hello").unwrap());
        assert_ne!(sealed_old[NONCE_BYTES..], sealed_new[NONCE_BYTES..]);
        assert!(!sealed_old.windows(5).any(|window| window == b"hello"));
        assert_eq!(keyring.unseal(old, &sealed_old).unwrap().as_deref(), Some(b"hello".as_slice()));

        assert_eq!(keyring.expire(new).unwrap(), 1);
        assert_eq!(keyring.unseal(old, &sealed_old).unwrap(), None);
        assert_eq!(keyring.unseal(new, &sealed_new).unwrap().as_deref(), Some(b"hello".as_slice()));
    }

    #[test]
    fn processes_that_expire_the_same_keys_do_not_fail_over_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(folder.path()).unwrap();
        let days = (0..150).map(|days| UtcDay::of_ms(days * 86_400_000));
        days.for_each(|day| drop(keyring.seal(day, b"x").unwrap()));
        let start = std::sync::Barrier::new(8);
        let shredded: usize = std::thread::scope(|scope| {
            let expire = || {
                start.wait();
                keyring.expire(day("2024-05-01")).unwrap()
            };
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(expire)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(shredded, 150, "each key is counted by the one who removed it");
    }

    #[test]
    fn changed_or_misdated_bytes_do_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(folder.path()).unwrap();
        let today = day("2024-05-01");
        let sealed = keyring.seal(today, b"hello").unwrap();
        keyring.seal(day("2024-05-02"), b"another day's key").unwrap();
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (at, bytes) in [(today, changed.as_slice()), (today, &sealed[..10]), (day("2024-05-02"), &sealed)] {
            assert!(matches!(keyring.unseal(at, bytes), Err(StoreError::NotSealedHere { .. })));
        }
    }

    #[test]
    fn an_unusable_keys_folder_is_one_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Keyring::open(&file).unwrap_err();
        assert!(matches!(&error, StoreError::Key { .. }) && error.to_string().contains("file"), "{error}");
    }
}
