-- Forgets that a lane has to follow its record, unless the record changed again. KEYS: the unmirrored. ARGV: name and
-- note of each.
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 1
