-- Takes or extends a hold. KEYS: the hold. ARGV: 1 the caller's time in milliseconds, 2 its end, 3 the owner. Answers
-- whether the owner has it. The key outlives its end by as long again, so that an owner whose clock is behind the
-- server's does not lose it early.
local raw = redis.call('GET', KEYS[1])
if raw then
  local ends, owner = raw:match('^(%d+) (.*)$')
  if owner ~= ARGV[3] and tonumber(ends) > tonumber(ARGV[1]) then return 0 end
end
local span = math.max(tonumber(ARGV[2]) - tonumber(ARGV[1]), 1)
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3], 'PX', 2 * span)
return 1
