-- Takes tokens from several buckets, or from none. KEYS: the buckets. ARGV: 1 the caller's time in microseconds; then for
-- each bucket how far ahead of now it may be spent, and the price, in microseconds; last how much further ahead only a
-- broken clock writes. Answers 0, or the microseconds to wait.
-- A bucket is the time at which it is full again; one that is full has no key. Lua's numbers hold microseconds exactly
-- until the year 2255.
local now, skew, wait, after = tonumber(ARGV[1]), tonumber(ARGV[#ARGV]), 0, {}
for n, key in ipairs(KEYS) do
  local reach, price = tonumber(ARGV[2 * n]), tonumber(ARGV[2 * n + 1])
  local full_at = after[key] or tonumber(redis.call('GET', key)) or 0
  if full_at > now + reach + skew then full_at = 0 end
  local spent = math.max(full_at, now) + price
  wait = math.max(wait, spent - now - reach)
  after[key] = spent
end
if wait > 0 then return wait end
for key, spent in pairs(after) do
  redis.call('SET', key, string.format('%.0f', spent), 'PX', math.max(math.ceil((spent - now) / 1000), 1))
end
return 0
