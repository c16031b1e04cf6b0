-- events.sqlite
BEGIN TRANSACTION;
CREATE TABLE counted (
        source_id TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL, class_name TEXT NOT NULL,
        minute BIGINT NOT NULL, run_epoch BIGINT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (source_id, place, minute, name, class_name, run_epoch));
INSERT INTO "counted" VALUES('cam','middle','in','person',29934430,1796065838573432174,2);
INSERT INTO "counted" VALUES('cam','all','visit','person',29934430,1796065838573432174,1);
INSERT INTO "counted" VALUES('cam','all','visit','car',29934430,1796065838573432174,1);
INSERT INTO "counted" VALUES('cam','middle','in','car',29934430,1796065838573432174,1);
INSERT INTO "counted" VALUES('cam','middle','out','person',29934430,1796065838573432174,2);
INSERT INTO "counted" VALUES('cam','middle','out','car',29934430,1796065838573432174,1);
CREATE TABLE event (
        event_id TEXT PRIMARY KEY, engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL,
        rule TEXT NOT NULL, severity TEXT NOT NULL, place TEXT NOT NULL, class_name TEXT NOT NULL, phase TEXT NOT NULL,
        began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT, began_scene_ns BIGINT NOT NULL, duration_s DOUBLE PRECISION,
        reason TEXT NOT NULL, facts TEXT NOT NULL, snapshot TEXT NOT NULL, best TEXT NOT NULL, clip TEXT NOT NULL,
        clip_state TEXT NOT NULL, clip_reason TEXT NOT NULL, kept SMALLINT NOT NULL, changed_by TEXT NOT NULL,
        changed BIGINT NOT NULL);
INSERT INTO "event" VALUES('cam-1796065838573432174-busy-1','site',1796065838573432174,'cam','busy','info','all','person','end',1796065838573432174,1796065853473432174,0,14.9,'engine_stopped','{"track_ids":[1],"why":["in all for 0.50 s >= for_s 0.5"],"data":{},"score":1.0,"xyxy":[47.0,147.0,212.0,240.0],"frame_id":149,"captured_utc_ns":1796065853473432174,"class_id":0,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-busy-1.trigger.jpg','snapshots/cam/2026-11-30/cam-1796065838573432174-busy-1.best.jpg','','','',0,'site',1796065838573432199);
INSERT INTO "event" VALUES('cam-1796065838573432174-busy-2','site',1796065838573432174,'cam','busy','info','all','car','end',1796065838573432174,1796065853473432174,0,14.9,'engine_stopped','{"track_ids":[2],"why":["in all for 0.50 s >= for_s 0.5"],"data":{},"score":1.0,"xyxy":[235.0,10.0,359.0,61.0],"frame_id":149,"captured_utc_ns":1796065853473432174,"class_id":1,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-busy-2.trigger.jpg','snapshots/cam/2026-11-30/cam-1796065838573432174-busy-2.best.jpg','','','',0,'site',1796065838573432200);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-1','site',1796065838573432174,'cam','passing','alert','middle','car','point',1796065839533432174,1796065839533432174,960000000,0.0,'','{"track_ids":[2],"why":["crossed middle out"],"data":{"speed_h":1.386,"inferred":false,"direction":"out"},"score":1.0,"xyxy":[260.0,34.0,384.0,85.0],"at":[320.0,83.0],"frame_id":10,"captured_utc_ns":1796065839573432174,"class_id":1,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-1.trigger.jpg','','','none','the source is not recorded (sources[].record)',0,'site',1796065838573432182);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-2','site',1796065838573432174,'cam','passing','alert','middle','person','point',1796065840396765507,1796065840396765507,1823333333,0.0,'','{"track_ids":[1],"why":["crossed middle out"],"data":{"speed_h":1.645,"inferred":false,"direction":"out"},"score":1.0,"xyxy":[249.0,261.0,414.0,354.0],"at":[320.0,356.3],"frame_id":19,"captured_utc_ns":1796065840473432174,"class_id":0,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-2.trigger.jpg','','','none','the source is not recorded (sources[].record)',0,'site',1796065838573432184);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-3','site',1796065838573432174,'cam','passing','alert','middle','person','point',1796065843684146460,1796065843684146460,5110714286,0.0,'','{"track_ids":[11],"why":["crossed middle in"],"data":{"speed_h":1.79,"inferred":false,"direction":"in"},"score":1.0,"xyxy":[225.0,36.0,390.0,129.0],"at":[320.0,120.96],"frame_id":52,"captured_utc_ns":1796065843773432174,"class_id":0,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-3.trigger.jpg','','','none','the source is not recorded (sources[].record)',0,'site',1796065838573432187);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-4','site',1796065838573432174,'cam','passing','alert','middle','person','point',1796065846976765507,1796065846976765507,8403333333,0.0,'','{"track_ids":[21],"why":["crossed middle out"],"data":{"speed_h":1.881,"inferred":false,"direction":"out"},"score":1.0,"xyxy":[252.0,202.0,417.0,295.0],"at":[320.0,303.7],"frame_id":85,"captured_utc_ns":1796065847073432174,"class_id":0,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-4.trigger.jpg','','','none','the source is not recorded (sources[].record)',0,'site',1796065838573432190);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-5','site',1796065838573432174,'cam','passing','alert','middle','car','point',1796065850133432174,1796065850133432174,11560000000,0.0,'','{"track_ids":[22],"why":["crossed middle in"],"data":{"speed_h":1.256,"inferred":false,"direction":"in"},"score":1.0,"xyxy":[256.0,78.0,380.0,129.0],"at":[320.0,130.6],"frame_id":116,"captured_utc_ns":1796065850173432174,"class_id":1,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-5.trigger.jpg','','','none','the source is not recorded (sources[].record)',0,'site',1796065838573432193);
INSERT INTO "event" VALUES('cam-1796065838573432174-passing-6','site',1796065838573432174,'cam','passing','alert','middle','person','point',1796065850263432174,1796065850263432174,11690000000,0.0,'','{"track_ids":[21],"why":["crossed middle in"],"data":{"speed_h":1.881,"inferred":false,"direction":"in"},"score":1.0,"xyxy":[236.0,86.0,401.0,179.0],"at":[320.0,178.1],"frame_id":117,"captured_utc_ns":1796065850273432174,"class_id":0,"stream_epoch":0}','snapshots/cam/2026-11-30/cam-1796065838573432174-passing-6.trigger.jpg','','','none','the source is not recorded (sources[].record)',1,'',1);
CREATE TABLE fact (
        fact_id TEXT PRIMARY KEY, engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL,
        kind TEXT NOT NULL, place TEXT NOT NULL, direction TEXT NOT NULL, class_name TEXT NOT NULL,
        track_id BIGINT NOT NULL, began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT, began_scene_ns BIGINT NOT NULL,
        duration_s DOUBLE PRECISION, reason TEXT NOT NULL);
INSERT INTO "fact" VALUES('cam-1796065838573432174-all-i1-0','site',1796065838573432174,'cam','visit','all','','person',31,1796065838573432174,1796065853473432174,0,14.9,'engine_stopped');
INSERT INTO "fact" VALUES('cam-1796065838573432174-all-i2-0','site',1796065838573432174,'cam','visit','all','','car',32,1796065838573432174,1796065853473432174,0,14.9,'engine_stopped');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i2-960000000','site',1796065838573432174,'cam','crossing','middle','out','car',2,1796065839533432174,1796065839533432174,960000000,NULL,'');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i1-1823333333','site',1796065838573432174,'cam','crossing','middle','out','person',1,1796065840396765507,1796065840396765507,1823333333,NULL,'');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i1-5110714286','site',1796065838573432174,'cam','crossing','middle','in','person',11,1796065843684146460,1796065843684146460,5110714286,NULL,'');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i1-8403333333','site',1796065838573432174,'cam','crossing','middle','out','person',21,1796065846976765507,1796065846976765507,8403333333,NULL,'');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i2-11560000000','site',1796065838573432174,'cam','crossing','middle','in','car',22,1796065850133432174,1796065850133432174,11560000000,NULL,'');
INSERT INTO "fact" VALUES('cam-1796065838573432174-middle-i1-11690000000','site',1796065838573432174,'cam','crossing','middle','in','person',21,1796065850263432174,1796065850263432174,11690000000,NULL,'');
CREATE TABLE gap (
        source_id TEXT NOT NULL, from_utc_ns BIGINT NOT NULL, to_utc_ns BIGINT, engine_id TEXT NOT NULL,
        run_epoch BIGINT NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (source_id, from_utc_ns));
CREATE TABLE media (
        path TEXT PRIMARY KEY, kind TEXT NOT NULL, source_id TEXT NOT NULL, event_id TEXT NOT NULL,
        began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT NOT NULL, bytes BIGINT NOT NULL, state TEXT NOT NULL,
        detail TEXT NOT NULL);
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-busy-1.trigger.jpg','snapshot','cam','cam-1796065838573432174-busy-1',1796065839073432174,1796065839073432174,17158,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-busy-2.trigger.jpg','snapshot','cam','cam-1796065838573432174-busy-2',1796065839073432174,1796065839073432174,17154,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-1.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-1',1796065839573432174,1796065839573432174,16471,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-2.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-2',1796065840473432174,1796065840473432174,15898,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-3.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-3',1796065843773432174,1796065843773432174,16538,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-4.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-4',1796065847073432174,1796065847073432174,16809,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-5.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-5',1796065850173432174,1796065850173432174,15890,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-passing-6.trigger.jpg','snapshot','cam','cam-1796065838573432174-passing-6',1796065850273432174,1796065850273432174,16484,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-busy-1.best.jpg','snapshot','cam','cam-1796065838573432174-busy-1',1796065842473432174,1796065842473432174,7040,'','');
INSERT INTO "media" VALUES('snapshots/cam/2026-11-30/cam-1796065838573432174-busy-2.best.jpg','snapshot','cam','cam-1796065838573432174-busy-2',1796065839073432174,1796065839073432174,7045,'','');
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('version','1');
CREATE TABLE occupancy (
        source_id TEXT NOT NULL, place TEXT NOT NULL, minute BIGINT NOT NULL, run_epoch BIGINT NOT NULL,
        seen_s DOUBLE PRECISION NOT NULL, object_s DOUBLE PRECISION NOT NULL, busy_s DOUBLE PRECISION NOT NULL,
        most INTEGER NOT NULL, PRIMARY KEY (source_id, place, minute, run_epoch));
INSERT INTO "occupancy" VALUES('cam','all',29934430,1796065838573432174,1.47999999999999793938e+01,2.89999999999999644737e+01,1.44999999999999822368e+01,2);
CREATE TABLE outbox (
        event_id TEXT NOT NULL, phase TEXT NOT NULL, action TEXT NOT NULL, engine_id TEXT NOT NULL,
        created_utc_ns BIGINT NOT NULL, due_utc_ns BIGINT NOT NULL, expires_utc_ns BIGINT NOT NULL,
        tries INTEGER NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, payload TEXT NOT NULL,
        PRIMARY KEY (event_id, phase, action));
CREATE TABLE review (
        event_id TEXT NOT NULL, person TEXT NOT NULL, at_utc_ns BIGINT NOT NULL, PRIMARY KEY (event_id, person));
INSERT INTO "review" VALUES('cam-1796065838573432174-passing-6','anna',1);
CREATE TABLE snooze (source_id TEXT PRIMARY KEY, until_utc_ns BIGINT NOT NULL);
CREATE TABLE source_run (
        engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL, began_utc_ns BIGINT NOT NULL,
        seen_utc_ns BIGINT NOT NULL, seen_scene_ns BIGINT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (run_epoch, source_id));
INSERT INTO "source_run" VALUES('site',1796065838573432174,'cam',1796065838573432174,1796065853473432174,14900000000,'engine_stopped');
CREATE TABLE track (
        engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL, track_id BIGINT NOT NULL,
        piece INTEGER NOT NULL, class_name TEXT NOT NULL, began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT NOT NULL,
        began_scene_ns BIGINT NOT NULL, score DOUBLE PRECISION NOT NULL, width INTEGER NOT NULL,
        height INTEGER NOT NULL, path BLOB NOT NULL, is_last SMALLINT NOT NULL,
        PRIMARY KEY (run_epoch, source_id, track_id, piece));
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',1,0,'person',1796065838573432174,1796065842473432174,0,1.0,640,360,X'0000662BAA8A00422242C80033227797004222424006997EDDFD00422242C800338A54F5004222427805FFDABB9B00422242C80066D7EE8E004222422C01CCC5BB7B00422242',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',2,0,'person',1796065838573432174,1796065842473432174,0,1.0,640,360,X'0000336D392E99314424C80033711C2799314424C800CC74D22799314424AC0D32B9939E99314424',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',11,0,'person',1796065842573432174,1796065846473432174,4000000000,1.0,640,360,X'000032C0557500422242200333922242004222420807332A9FB400422242C80066236BC1004222422003CC519EF400422242C800665D93FE00422242640000632DF800422242',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',12,0,'person',1796065842573432174,1796065846473432174,4000000000,1.0,640,360,X'000032BB22A2993144249808FFE5CCEC99314424C80066E4E8F3993144249001CCDC93FE993144244C0432C7E3D899314424',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',21,0,'person',1796065846573432174,1796065850473432174,8000000000,1.0,640,360,X'00000069C6F100422242D00732DCC77100422242C80032D6FA64004222429001FFBE604B00422242C80066B3B045004222424C04CC73168C00422242',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',22,0,'person',1796065846573432174,1796065850473432174,8000000000,1.0,640,360,X'000032C50BD6993144243C0F3379115199314424',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',31,0,'person',1796065850573432174,1796065853373432174,12000000000,1.0,640,360,X'0000336E7D9200422242B004002993DE00422242C800992460EB00422242C80033302DF800422242C800CD3B05FB00422242E803667505BB00422242',1);
INSERT INTO "track" VALUES('site',1796065838573432174,'cam',32,0,'car',1796065850573432174,1796065853373432174,12000000000,1.0,640,360,X'00003377394E99314424B0040060FA2499314424C800005CF429993144247805CD40995999314424',1);
CREATE TABLE writer (
        engine_id TEXT PRIMARY KEY, run_epoch BIGINT NOT NULL, changed BIGINT NOT NULL,
        is_running SMALLINT NOT NULL);
INSERT INTO "writer" VALUES('site',1796065838573432174,1796065838573432200,0);
INSERT INTO "writer" VALUES('',0,1,1);
CREATE INDEX event_began ON event (began_utc_ns, event_id);
CREATE INDEX event_source ON event (source_id, began_utc_ns, event_id);
CREATE INDEX event_rule ON event (rule, began_utc_ns, event_id);
CREATE INDEX event_severity ON event (severity, began_utc_ns, event_id);
CREATE INDEX event_place ON event (place, began_utc_ns, event_id);
CREATE INDEX event_class ON event (class_name, began_utc_ns, event_id);
CREATE INDEX event_changed ON event (changed_by, changed);
CREATE INDEX event_open ON event (began_utc_ns, event_id) WHERE ended_utc_ns IS NULL;
CREATE INDEX event_kept ON event (began_utc_ns, event_id) WHERE kept = 1;
CREATE INDEX event_due ON event (ended_utc_ns) WHERE clip_state = 'due';
CREATE INDEX fact_source ON fact (source_id, began_utc_ns);
CREATE INDEX fact_began ON fact (began_utc_ns);
CREATE INDEX fact_open ON fact (engine_id) WHERE ended_utc_ns IS NULL;
CREATE INDEX track_source ON track (source_id, began_utc_ns);
CREATE INDEX track_began ON track (began_utc_ns);
CREATE INDEX media_kind ON media (kind, began_utc_ns);
CREATE INDEX media_source ON media (source_id, kind, began_utc_ns);
CREATE INDEX media_event ON media (event_id);
CREATE INDEX outbox_due ON outbox (engine_id, due_utc_ns) WHERE state = 'due';
CREATE INDEX outbox_created ON outbox (created_utc_ns);
CREATE INDEX outbox_planned ON outbox (action, engine_id, created_utc_ns)
        WHERE state IN ('due', 'sent', 'failed');
COMMIT;
