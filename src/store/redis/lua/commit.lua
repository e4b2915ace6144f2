-- Accepts a staged request, or refuses it as a whole. KEYS[FIXED + 1] is where it is staged, the next, if there is one, its
-- idempotency key. ARGV: 4 its name, 5 in how many parts, 6 how many events it has, 7 how many of them are repeats, 8 the
-- idempotency key's content, 9 the answer to keep with it.
-- Answers `stored`, `repeated` and JSON, `reused`, or `collision` where it is not whole: it was forgotten or broken off.
-- Once accepted, its claims hold, and `apply` writes the parts.
local staging, name, parts, repeats = KEYS[FIXED + 1], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[7])
local key = KEYS[FIXED + 2] and FIXED + 2 or 0

local function drop(answer)
  call('UNLINK', staging)
  call('ZREM', STAGED, name)
  return answer
end

-- This step runs again.
if call('ZSCORE', ACCEPTED, name) then return { 'stored' } end
if not is_staged(name) or call('HLEN', staging) ~= parts + repeats then return drop({ 'collision' }) end
local known = seen(key, ARGV[8])
if known then return drop(known.same and { 'repeated', known.answer } or { 'reused' }) end
remember(key, ARGV[8], ARGV[9])
if tonumber(ARGV[6]) == repeats then return drop({ 'stored' }) end
call('HSET', staging, 'left', parts, 'parts', parts)
call('ZREM', STAGED, name)
call('ZADD', ACCEPTED, now, name)
-- Should this process die now, another one goes on.
call('PUBLISH', channel, 'staged')
return { 'stored' }
