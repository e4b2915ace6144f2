-- Keys that tell a repeat, shared by the scripts that accept events.
local DAY = '86400000'
-- In place of an answer: a staged request claims the key; its name, the event's number in it and the number of jobs follow.
local CLAIM = 'c'
-- After so long upkeep forgets what was staged and not accepted; `UNFINISHED` of `cadence.rs`.
local UNFINISHED = 5000

-- A request that is broken off is not accepted any more: whoever staged it begins anew, or upkeep forgets it.
local function break_off(name)
  call('ZADD', STAGED, 'XX', 0, name)
end

-- Whether a request may still be accepted.
local function is_staged(name)
  return (tonumber(call('ZSCORE', STAGED, name)) or 0) > 0
end

-- What a key stands for that holds `raw`: whether for this content, and the answer. Where a request that may still be
-- accepted claims it, also its name and the event's number in it. The claim of one that was forgotten or broken off says
-- nothing.
local function meaning(raw, content)
  local expires, known = struct.unpack('>I6c16', raw)
  if expires <= now then return nil end
  if raw:sub(23, 23) ~= CLAIM then return { same = known == content, answer = raw:sub(23) } end
  local name, event = struct.unpack('>c11I4', raw, 24)
  local found = { same = known == content, answer = raw:sub(39) }
  if call('ZSCORE', ACCEPTED, name) then return found end
  local since = tonumber(call('ZSCORE', STAGED, name)) or 0
  if since <= 0 then return nil end
  if since + UNFINISHED <= now then
    break_off(name)
    return nil
  end
  found.name, found.event = name, event
  return found
end

local function seen(index, content)
  local raw = index > 0 and call('GET', KEYS[index])
  return raw and meaning(raw, content) or nil
end

local function remember(index, content, answer)
  if index == 0 then return end
  call('SET', KEYS[index], number(now + tonumber(DAY), 6) .. content .. answer, 'PX', DAY)
end

-- Has the key stand for `entry` (when it ends, content, answer) where it stands for nothing yet; else answers what it
-- stands for.
local function remember_first(index, entry)
  local raw = call('SET', KEYS[index], entry, 'NX', 'GET', 'PX', DAY)
  if not raw then return nil end
  local known = meaning(raw, entry:sub(7, 22))
  if known and not known.name then return known end
  -- What is decided here and now goes before a large request that is still on its way in.
  if known then break_off(known.name) end
  call('SET', KEYS[index], entry, 'PX', DAY)
  return nil
end

-- Makes the claim of an accepted request a plain answer.
local function settle_claim(index, name)
  if index == 0 then return end
  local raw = call('GET', KEYS[index])
  if raw and raw:sub(23, 34) == CLAIM .. name then
    call('SET', KEYS[index], raw:sub(1, 22) .. raw:sub(39), 'KEEPTTL')
  end
end
