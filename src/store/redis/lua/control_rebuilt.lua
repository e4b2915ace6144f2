-- Takes a server into use again whose records were written anew. KEYS: who writes them, the epoch. ARGV: 1 the caller, 2
-- the epoch. Answers 0 when the caller is not the one who wrote, or the server was emptied again meanwhile.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
return 1
