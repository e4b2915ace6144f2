-- Changes after a revision. KEYS: the documents, the feed. ARGV: 1 since, 2 how many at the most. Answers name, revision
-- and document (false when deleted) of each.
local feed = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local answer = {}
for at = 1, #feed, 2 do
  answer[#answer + 1] = { feed[at], tonumber(feed[at + 1]), redis.call('HGET', KEYS[1], feed[at]) }
end
return answer
