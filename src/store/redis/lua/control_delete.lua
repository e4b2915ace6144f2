-- Deletes a record. KEYS as for writing. ARGV: 1 its name, 2 whether a lane follows it, 3 the tenant that owns
-- it (empty for none), 4 the channel, 5 whether it is a tenant. Answers the revision, 0 when there was none, -1 while a
-- tenant owns something.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[5] == '1' and redis.call('SCARD', KEYS[5]) > 0 then return -1 end
local revision = redis.call('INCR', KEYS[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], revision, ARGV[1])
if ARGV[2] == '1' then redis.call('HSET', KEYS[4], ARGV[1], revision .. ' ' .. ARGV[3]) end
if ARGV[3] ~= '' then redis.call('SREM', KEYS[5], ARGV[1]) end
redis.call('PUBLISH', ARGV[4], revision)
return revision
