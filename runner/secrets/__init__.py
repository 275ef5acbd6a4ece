"""Tenants' secrets, stored so that a copy of the database reveals none of them.

    value ─ AES-256-GCM under the tenant's data key, bound to tenant and name ─→ secrets
    data key ─ AES-256-GCM under a key-encryption key, bound to the tenant ────→ secret_keys
    key-encryption key ── a file, the environment, or a KMS behind `KeyEncryption`: never stored

* The API seals values. Its login may write ciphertext and cannot read it back.
* The worker opens a value when an execution uses it, and passes it to the egress proxy, or to the
  program if the execution asks for that.
* Rotation replaces the key-encryption key: it wraps the data keys again and leaves the values
  alone.

    envelope  AES-256-GCM, bound to what it belongs to
    keyring   key-encryption keys
    streams   long contents, sealed piece by piece
    vault     secrets in and out of the store
"""
