-- users.sqlite
BEGIN TRANSACTION;
CREATE TABLE session (digest text primary key, user text not null references user(name) on delete cascade,
    made_s integer not null, seen_s integer not null);
CREATE TABLE token (name text primary key, digest text unique not null, role text not null, sources text,
    made_s integer not null);
CREATE TABLE user (name text primary key, password text not null, role text not null, sources text);
INSERT INTO "user" VALUES('anna','scrypt$k+L88TceJJ6VYtDf4WhTTkJrhRmHrJ+YdbpG3PF1FKw=$eQwlwwBamDT8rUf2I7jVLWbBZ2IknW4ORmlSI+Iy6Yg=','operator','["cam"]');
CREATE INDEX session_user on session(user);
COMMIT;
