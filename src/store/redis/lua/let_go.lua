-- Ends a hold. KEYS: the hold. ARGV: 1 the owner.
local raw = redis.call('GET', KEYS[1])
if raw and raw:match('^%d+ (.*)$') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
