-- Writes a record. KEYS: the documents, the feed, the counter, the unmirrored, what the tenant owns, the epoch. ARGV: 1 its name,
-- 2 its document, 3 the revision it must have (-1: it must not be there), 4 whether a lane follows it, 5 the tenant that
-- owns it (empty for none), 6 the channel, 7 the epoch that must be (empty for whichever). Answers its revision, or -1; -2
-- when the server was emptied.
if ARGV[7] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[7] then return -2 end
local known = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1
local expected = tonumber(ARGV[3])
if expected < 0 then
  if known then return -1 end
elseif not known or tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1])) ~= expected then
  return -1
end
local revision = redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], revision, ARGV[1])
if ARGV[4] == '1' then redis.call('HSET', KEYS[4], ARGV[1], revision .. ' ' .. ARGV[5]) end
if ARGV[5] ~= '' then redis.call('SADD', KEYS[5], ARGV[1]) end
redis.call('PUBLISH', ARGV[6], revision)
return revision
