-- Writes a hash, or deletes it, unless its guard says that what is there is as new.
-- KEYS: the hash, its guard. ARGV: generation, topic, partition, offset in 20 digits, lifetime of the hash and of the
-- guard in milliseconds (0: for ever), then fields and values; none delete.
-- Gives 1: written; 0: what is there is as new; a list: the guard, which is not comparable.
local was = redis.call('HMGET', KEYS[2], 'generation', 'topic', 'partition', 'offset')
if was[1] then
  local before, now = tonumber(was[1]), tonumber(ARGV[1])
  if now < before then return was end
  if now == before then
    if was[2] ~= ARGV[2] or was[3] ~= ARGV[3] then return was end
    if ARGV[4] <= was[4] then return 0 end
  end
end
-- First the guard: it takes memory, so a full store refuses here, before anything was changed.
redis.call('HSET', KEYS[2], 'generation', ARGV[1], 'topic', ARGV[2], 'partition', ARGV[3], 'offset', ARGV[4])
if ARGV[6] == '0' then redis.call('PERSIST', KEYS[2]) else redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
redis.call('DEL', KEYS[1])
if #ARGV > 6 then
  -- Lua's stack is bounded, so many fields are set in parts.
  for first = 7, #ARGV, 1000 do
    redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
  end
  if ARGV[5] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
end
return 1
