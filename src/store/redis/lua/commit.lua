-- Accepts a staged request, or refuses it as a whole. KEYS[FIXED + 1] is where it is staged. ARGV: 4 its name, 5 in how many
-- parts, 6 the idempotency key's index in KEYS (0 for none), 7 its content, 8 the number of events; for each of them: public
-- id, dedupe's index (0 for none), its content, the index of its key, its meta, the number of its jobs.
-- Answers as `ingest` does. Once accepted, `apply` writes the parts; nothing but the names of the events is written here.
local staging, name, parts = KEYS[FIXED + 1], ARGV[4], tonumber(ARGV[5])
local EACH = 6

local function drop(answer)
  call('UNLINK', staging)
  call('ZREM', STAGED, name)
  return answer
end

-- Upkeep removed it, or another one has its name.
if call('HLEN', staging) ~= parts then return { 'collision' } end
local key, content = tonumber(ARGV[6]), ARGV[7]
local known = seen(key, content)
if known then return drop(known.same and { 'repeated', known.answer } or { 'reused' }) end
for n = 0, tonumber(ARGV[8]) - 1 do
  if call('EXISTS', KEYS[tonumber(ARGV[COMMON + 6 + n * EACH + 3])]) == 1 then return drop({ 'collision' }) end
end
local answer, kept, fresh = { 'stored' }, {}, 0
for n = 0, tonumber(ARGV[8]) - 1 do
  local at = COMMON + 6 + n * EACH
  local dedupe, same, event, jobs = tonumber(ARGV[at + 1]), ARGV[at + 2], KEYS[tonumber(ARGV[at + 3])], tonumber(ARGV[at + 5])
  local before = seen(dedupe, same)
  local written
  if before then
    written = before.same and tostring(-1 - tonumber(before.answer)) or 'reused'
    call('HSET', staging, 'x' .. n, '')
  else
    written = tostring(jobs)
    call('HSET', event, 'm', number(jobs, 3) .. ARGV[at + 4])
    remember(dedupe, same, written)
    fresh = fresh + 1
  end
  answer[#answer + 1] = written
  kept[#kept + 1] = { ARGV[at], written }
end
remember(key, content, #kept > 0 and cjson.encode(kept) or '[]')
if fresh == 0 then return drop(answer) end
call('HSET', staging, 'left', parts, 'parts', parts)
call('ZADD', STAGED, now, name)
-- Should this process die now, another one goes on.
call('PUBLISH', channel, 'staged')
return answer
