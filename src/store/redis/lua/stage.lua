-- Stages one part of a large request and claims the dedupe keys of the events that begin in it. KEYS[FIXED + 1] is where it is
-- staged; then come the keys of those events, then those of their dedupes. ARGV: 4 its name, 5 the part, 6 the part's
-- bytes; then for each of those events: its number in the request, dedupe's index in KEYS (0 for none), its content, the number
-- of its jobs.
-- Answers `staged` and for each event what `ingest` does; `busy` where an older request that may still be accepted claims
-- one of them; `collision` where an id is taken, or the request was forgotten or broken off. May run again after any answer.
local staging, name = KEYS[FIXED + 1], ARGV[4]
local FIRST, EACH = COMMON + 4, 4
if not is_staged(name) then return { 'collision' } end
local events = (#ARGV - FIRST + 1) / EACH
if events > 0 and call('EXISTS', unpack(KEYS, FIXED + 2, FIXED + 1 + events)) > 0 then return { 'collision' } end

-- What the event's key says already; the younger of two requests on their way in waits for the older, so that none
-- waits for one that waits for it.
local function earlier(event, dedupe, content)
  local known = seen(dedupe, content)
  if not known or not known.name then return known end
  if known.name ~= name then
    if call('ZRANK', STAGED, known.name) < call('ZRANK', STAGED, name) then return nil, true end
    break_off(known.name)
    return nil
  end
  -- The same one may come twice in a request, or this step runs again.
  return known.event ~= tonumber(event) and known or nil
end

local answer = { 'staged' }
for at = FIRST, #ARGV, EACH do
  local event, dedupe, content, jobs = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local known, is_busy = earlier(event, dedupe, content)
  if is_busy then return { 'busy' } end
  if known then
    call('HSET', staging, 'x' .. event, '')
    answer[#answer + 1] = known.same and tostring(-1 - tonumber(known.answer)) or 'reused'
  else
    remember(dedupe, content, CLAIM .. name .. number(event, 4) .. jobs)
    answer[#answer + 1] = jobs
  end
end
call('HSET', staging, ARGV[5], ARGV[6])
return answer
