"""Tenants' secrets: stored so that a copy of the database tells nothing of them.

    value ─ AES-256-GCM under the tenant's data key, bound to tenant and name ─→ secrets
    data key ─ AES-256-GCM under a key-encryption key, bound to the tenant ────→ secret_keys
    key-encryption key ── a file, the environment, or a KMS behind `KeyEncryption`: never stored

* The API seals values. Its login may write ciphertext and cannot read it back.
* The worker opens a value when an execution uses it, and hands it to the egress proxy, or to the
  program when that was asked for by name.
* Rotation replaces the key-encryption key: data keys are wrapped anew, values stay as they are.

    envelope  AES-256-GCM, bound to what it belongs to
    keyring   key-encryption keys
    vault     secrets in and out of the store
"""
